"""The house's rules: imports point down only, nothing heavy is imported before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kdhelpers

PACKAGE = Path(kdhelpers.__file__).parent

# Room -> the rooms of ours that it may import. A room not named here fails the test, so a new one takes a decision.
BELOW = {
    "artifacts": set(),
    "device": set(),
    "html": set(),
    "progress": set(),
    "wording": set(),
    "models": set(),
    "methods": set(),
    "optim": set(),
    "data": {"artifacts", "device"},
    "settings": {"artifacts", "data", "methods", "models", "optim"},
    "inert": set(),
    "foreign": {"artifacts", "inert"},
    "teachers": {"artifacts", "foreign", "models"},
    "evaluation": {"data", "device", "models"},
    "batching": {"data", "methods", "settings"},
    "seen": {"data", "methods", "settings", "teachers"},
    "loop": {"batching", "data", "device", "evaluation", "methods", "models", "optim", "settings", "teachers"},
    "record": {"artifacts", "data", "device", "seen", "settings", "teachers"},
    "register": {"artifacts", "data", "device", "evaluation", "foreign", "models", "record", "teachers"},
    "zoo": {"artifacts", "data", "models", "pairs", "register", "teachers"},
    "probe": {"data", "evaluation"},
    "job": {"artifacts", "data", "evaluation", "loop", "models", "probe", "record", "settings", "teachers"},
    "outputs": {"artifacts", "data", "device", "models", "teachers"},
    "lockstep": {"batching", "data", "job", "loop", "methods", "models", "outputs", "progress", "teachers"},
    "stored": {"artifacts", "record", "settings", "teachers"},
    "train": {
        "artifacts",
        "data",
        "device",
        "job",
        "lockstep",
        "methods",
        "progress",
        "record",
        "settings",
        "stored",
        "teachers",
    },
    "summary": {"artifacts", "methods"},
    "lineup": {"artifacts", "methods", "summary", "teachers"},
    "plots": {"artifacts", "progress", "summary", "wording"},
    "analysis": {"data", "evaluation", "html", "models", "plots", "probe"},
    "tables": {"artifacts", "methods", "models", "summary", "teachers", "wording"},
    "published": {"artifacts", "methods", "summary", "tables", "wording"},
    "pairs": {"plots", "summary", "tables", "wording"},
    "sweep": {"optim", "settings"},
    "notebook": {"artifacts", "device", "html", "plots", "progress"},
    "gallery": {"artifacts", "html", "progress", "summary", "wording"},
    "suite": {"artifacts", "gallery", "summary", "wording"},
    "submission": {"artifacts", "data", "device", "teachers"},
    "console": {
        "analysis",
        "artifacts",
        "data",
        "evaluation",
        "methods",
        "models",
        "optim",
        "plots",
        "progress",
        "suite",
        "summary",
        "teachers",
        "wording",
    },
    "__main__": {"artifacts", "console", "data", "gallery", "optim", "submission", "suite", "zoo"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms of ours that a file imports, at its top or inside a function; its own room left out."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    parts = {name.split(".")[1] for name in names if name.startswith("kdhelpers.")}
    known = {room(other) for other in PACKAGE.rglob("*.py")}
    return (parts & known) - {room(path)}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    if room(path) == "__init__":
        return
    up = imported_rooms(path) - BELOW[room(path)]
    assert not up, f"{path.name} imports {', '.join(sorted(up))}, which {room(path)} may not know"


def test_the_plan_has_no_circle():
    from graphlib import TopologicalSorter

    TopologicalSorter(BELOW).prepare()


HEAVY = ("torchvision", "pandas", "sklearn", "matplotlib", "pytorch_grad_cam", "PIL", "pyarrow", "IPython", "papermill")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import kdhelpers", (*HEAVY, "torch", "pydantic")),
        (
            "from kdhelpers import Run, fit, load_data, build_model, load_model, infer, evaluate, compare, METHODS",
            HEAVY,
        ),
    ],
)
def test_imports_stay_light(statement, absent):
    code = f"{statement}; import sys; print(sorted(set({absent!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_functions_win_over_modules_whatever_is_imported_first():
    code = "import kdhelpers.summary as module; from kdhelpers import results; assert results is module.results"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="no attribute 'train_it'; it offers .*fit"):
        kdhelpers.train_it  # noqa: B018

"""The house's rules: imports point down only, nothing heavy is imported before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kdhelpers

PACKAGE = Path(kdhelpers.__file__).parent

# Lowest first. A file imports from its own wing and from lower floors only; a wing not named here fails the test.
FLOORS = (
    "registry messages python_paths",
    "nearest",
    "artifacts device models methods",
    "display weights",
    "data",
    "evaluation",
    "training analysis",
    "zoo",
    "report",
    "suite deploy",
    "tuning",
    "cli",
    "__main__",
)
FLOOR_OF = {wing: height for height, wings in enumerate(FLOORS) for wing in wings.split()}


def wing(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_wings(path: Path) -> set[str]:
    """The wings that a file imports, at its top or inside a function; its own wing left out."""
    text, names = path.read_text(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative imports hide where they lead"
            names |= {f"{node.module}.{PUBLIC.get(alias.name, alias.name)}" for alias in node.names} | {node.module}
    assert "import_module(" not in text, f"{path.name}: an import by a text hides from this test"
    parts = {name.split(".")[1] for name in names if name.startswith("kdhelpers.")}
    wings = {wing(other) for other in PACKAGE.rglob("*.py")}
    return (parts & wings) - {wing(path)}


PUBLIC = {**kdhelpers._HOME, **kdhelpers._MODULES}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_come_from_lower_floors(path):
    not_lower = {other for other in imported_wings(path) if FLOOR_OF[other] >= FLOOR_OF[wing(path)]}
    assert not not_lower, f"{path.name} imports {', '.join(sorted(not_lower))}: not below {wing(path)}"


HEAVY = (
    "torchvision",
    "timm",
    "onnx",
    "onnxruntime",
    "safetensors",
    "pandas",
    "sklearn",
    "matplotlib",
    "pytorch_grad_cam",
    "PIL",
    "pyarrow",
    "IPython",
    "papermill",
    "optuna",
)


@pytest.mark.parametrize(
    ("statement", "absent"), [("import kdhelpers", (*HEAVY, "torch", "pydantic")), ("from kdhelpers import *", HEAVY)]
)
def test_imports_stay_light(statement, absent):
    code = f"{statement}; import sys; print(sorted(set({absent!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_public_module_is_the_module_itself():
    code = "from kdhelpers import plots; import kdhelpers.display.plots as other; assert plots is other; help(plots)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "figures" in done.stdout.partition("FUNCTIONS")[0].lower()


def test_functions_win_over_modules_whatever_is_imported_first():
    code = "import kdhelpers.report.results as module; from kdhelpers import results; assert results is module.results"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_modules_load_before_torch():
    """torch's import reads every module in `sys.modules`."""
    code = "from kdhelpers import analysis, plots, tables, infer; print(analysis.agreement, plots.curves, dir(tables))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="no attribute 'train_it'; it offers .*fit"):
        kdhelpers.train_it  # noqa: B018

"""Notebooks as the suite and the listing read them: title, parameters and their meaning, without a kernel."""

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path

from kdhelpers.artifacts import root

PACKAGE = Path(__file__).resolve().parent.parent


def notebooks_folder() -> Path:
    """The notebooks under the artifacts' root, else in this package's checkout."""
    own = root() / "notebooks"
    return own if any(own.glob("*.ipynb")) else PACKAGE.parent / "notebooks"


def notebook_names() -> list[str]:
    return sorted(path.stem for path in notebooks_folder().glob("*.ipynb"))


def accepted_by(notebook: Path) -> frozenset[str]:
    """The names in the parameters cell; with `training` among them also every name of a run that `settings` takes."""
    from kdhelpers.training.named import all_names  # imports torch

    declared = parameters_of(notebook)
    return frozenset(declared) | (all_names() if "training" in declared else frozenset())


def parameters_of(notebook: Path) -> dict[str, str]:
    """Name -> default, as written, of every assignment in the cell tagged `parameters`.

    The cell is parsed as Python: papermill's own inspection loses a line whose comment holds a quote or an equals
    sign. Raises ValueError for a cell that Python cannot parse.
    """
    for cell in cells_of(notebook):
        if "parameters" in cell["metadata"].get("tags", ()):
            try:
                statements = ast.parse(source_of(cell)).body
            except SyntaxError as error:
                raise ValueError(f"{notebook}: its parameters cell is not plain Python: {error}") from error
            return dict(pair for statement in statements for pair in _assigned(statement))
    return {}


def _assigned(statement: ast.stmt) -> Iterable[tuple[str, str]]:
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            yield name, ast.unparse(value)


def title_of(notebook: Path) -> str:
    """The first heading of a notebook."""
    prose = "\n".join(source_of(cell) for cell in cells_of(notebook) if cell["cell_type"] == "markdown")
    return next((line.lstrip("# ") for line in prose.splitlines() if line.startswith("#")), "(no title)")


def meanings_of(notebook: Path) -> dict[str, str]:
    """Name -> comment of every line `name: type = default  # comment` in the cell tagged `parameters`."""
    cells = [source_of(cell) for cell in cells_of(notebook) if "parameters" in cell["metadata"].get("tags", ())]
    return dict(re.findall(r"^(\w+)\b[^#\n]*?=.*?  # (.*)$", "\n".join(cells), re.MULTILINE))


def cells_of(notebook: Path) -> list[dict]:
    try:
        return json.loads(notebook.read_bytes())["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook}: not a notebook (damaged JSON or no cells); restore it") from error


def source_of(cell: dict) -> str:
    return "".join(cell["source"])  # a text or, as nbformat also allows, a list of lines

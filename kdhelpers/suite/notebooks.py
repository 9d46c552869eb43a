"""Notebooks as the suite and the listing read them: title, parameters and their meaning, without a kernel."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kdhelpers.artifacts import load_json, reading, root

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
            with reading(notebook, "correct it", "its parameters cell is not plain Python"):
                statements = ast.parse(source_of(cell)).body
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
    """The cells. Raises ValueError for another file than a notebook of nbformat 4."""
    content = load_json(notebook, "restore it", finite=False)
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or not all(map(_is_cell, cells)):
        raise ValueError(f"{notebook}: not a notebook (no cells, or cells of another form); restore it")
    return cells


def _is_cell(cell: Any) -> bool:
    parts = [cell.get(part) for part in ("cell_type", "metadata", "source")] if isinstance(cell, dict) else [None] * 3
    kind, metadata, source = parts
    lines = source if isinstance(source, list) else [source]
    tags = metadata.get("tags", []) if isinstance(metadata, dict) else None
    return isinstance(kind, str) and isinstance(tags, list) and all(isinstance(line, str) for line in lines)


def source_of(cell: dict) -> str:
    return "".join(cell["source"])  # a text or, as nbformat also allows, a list of lines

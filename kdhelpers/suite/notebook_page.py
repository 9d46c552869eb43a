"""An executed notebook as one HTML page without network and scripts: it holds its pictures, its formulas are MathML."""

import logging
import re
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import Any

from kdhelpers.artifacts import read_file, reading, write_atomic
from kdhelpers.display.html import Markup, render
from kdhelpers.suite.notebooks import notebooks_folder

MARKER = '<meta name="generator" content="kdhelpers notebook">'
BRACKETS = 1000  # of a Markdown cell: the time that its links take grows with the square of them
REMOTE_PICTURE = re.compile(r"\[?!\[([^\]]*)\]\(https?:[^)]*\)(?:\]\(([^)]*)\))?")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def notebook_page(source: Path, target: Path) -> Path:
    """Convert the notebook `source`; returns `target`. Pictures from the network become links or texts."""
    import nbformat

    content = read_file(source)
    with reading(source, "replay it again"):
        notebook = nbformat.reads(content.decode(), as_version=4)
        return write_atomic(target, _page(source.stem, notebook).encode())


def _page(title: str, notebook: Any) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            if (brackets := cell.source.count("[")) > BRACKETS:
                raise ValueError(f"a Markdown cell has {brackets:,} brackets; split it, {BRACKETS:,} is the limit")
            cell.source = LINK.sub(_from_the_page, REMOTE_PICTURE.sub(_as_link, cell.source))
    body, _ = _exporter().from_notebook_node(notebook)
    return render(
        "suite/notebook.html.j2",
        title=title,
        marker=MARKER,
        dataset=notebook.metadata.get("papermill", {}).get("parameters", {}).get("dataset", "digits"),  # the default
        body=Markup(body),
        light=_highlighting("default"),
        dark=_highlighting("github-dark"),
    )


def is_page(path: Path) -> bool:
    """Whether this module wrote the page."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return MARKER in file.read(4096)


def _as_link(found: re.Match) -> str:
    return f"[{found[1]}]({found[2]})" if found[2] else found[1]


def _from_the_page(found: re.Match) -> str:
    """A link as it leads from plots/notebooks/; a picture is put into the page, or its text if it is missing."""
    is_picture, text, target = found[1], found[2], found[3]
    if ":" in target or target.startswith("#"):
        return found[0]
    if not is_picture:
        return f"[{text}](../../notebooks/{target})"
    path, checkout = (notebooks_folder() / target).resolve(), notebooks_folder().parent.resolve()
    if path.suffix.lower() != ".png" or not path.is_relative_to(checkout) or not path.is_file():
        return text  # a page may be published: a notebook must not put other files into it
    return f"![{text}](data:image/png;base64,{b64encode(path.read_bytes()).decode()})"


@cache
def _exporter():
    from kdhelpers.suite.formulas import FormulaExporter

    exporter = FormulaExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.log.setLevel(logging.ERROR)  # it warns of pictures without texts
    return exporter


@cache
def _highlighting(style: str) -> Markup:
    from pygments.formatters import HtmlFormatter

    return Markup(HtmlFormatter(style=style).get_style_defs(".highlight"))

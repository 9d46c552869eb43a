"""Formulas of notebook pages: MathML that shows without a script; faulty or unknown TeX stays as it is, escaped."""

import re
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from kdhelpers.suite.formulas import FormulaExporter, mathml

NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@cache
def exporter() -> FormulaExporter:
    return FormulaExporter(template_name="basic")


def page(*texts: str) -> str:
    notebook = new_notebook(cells=[new_markdown_cell(text) for text in texts])
    return exporter().from_notebook_node(notebook)[0]


def test_a_formula_is_a_fraction_and_not_tex():
    formula = ElementTree.fromstring(mathml(r"\frac{a}{b} < \tau", "block"))
    assert formula.get("display") == "block"
    (fraction,) = formula.iter(NAMESPACE + "mfrac")
    assert [part.text for part in fraction.iter(NAMESPACE + "mi")] == ["a", "b"]
    assert "".join(formula.itertext()) == "ab<τ"


@pytest.mark.parametrize("text", [r"$x^2$", r"\\(x^2\\)", r"$$x^2$$", r"\\[x^2\\]"])
def test_each_delimiter_gives_one_element(text):
    body = page(f"before {text} after")
    assert body.count("<msup>") == 1
    assert re.sub(r"<math.*</math>", "", body).count("x^2") == 0


def test_code_and_prices_are_not_formulas():
    assert "<math" not in page("`$x^2$` and 5 $", "```\n$x^2$\n```")


def test_a_mark_stays_with_its_formula():
    assert re.search(r'<span class="unbroken"><math [^>]*>(?:(?!</math>).)*</math>\.</span>', page("grows with $T$."))
    assert page("$T$ and $B$.").count("unbroken") == 1


@pytest.mark.parametrize("tex", [r"x^", r"\nosuchcommand{x}"])
def test_tex_that_cannot_be_converted_stays(tex):
    assert mathml(tex, "inline") == ""
    assert f"${tex}$" in page(f"a ${tex}$ b")


@pytest.mark.parametrize("tex", [r"\text{<script>alert(1)</script>}", r"x^{<script>", r"\href{javascript:alert(1)}{x}"])
@pytest.mark.parametrize("mark", ["$", "$$"])
def test_a_formula_brings_neither_scripts_nor_links(tex, mark):
    body = page(f"a {mark}{tex}{mark} b")
    assert "<script" not in body
    assert not re.search("<[^>]*javascript", body)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_formulas_of_the_notebooks_are_converted(path):
    cells = nbformat.read(path, as_version=4).cells
    body = page(*(cell.source for cell in cells if cell.cell_type == "markdown"))
    assert not re.search(r"\$[^$`<]*\\", body)

"""The report after the jobs: executed notebooks as pages, and the profiles of jobs."""

import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kdhelpers.artifacts import folder
from kdhelpers.suite import notebook_page, report

BADGE = "[![Open in Colab](https://colab.example/badge.svg)](https://colab.example/open)"
LINKS = "![own](../plots/own.png) [next](02.ipynb) ![gone](../plots/gone.png)"


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ROOT", str(tmp_path))
    return tmp_path


def executed(name: str, dataset: str | None = None):
    """An executed notebook of a text, a table and a picture."""
    outputs = [
        new_output("stream", text="trained <1 s>"),
        new_output("display_data", {"text/html": "<table><tr><td>53.5</td></tr></table>"}),
        new_output("display_data", {"image/png": "iVBORw0KGgo="}),
    ]
    cells = [
        new_markdown_cell(f"# A title\n{BADGE}\n![plain](http://a.example/b.png)\n{LINKS}"),
        new_code_cell("1", outputs=outputs),
    ]
    notebook = new_notebook(cells=cells)
    if dataset:
        notebook.metadata["papermill"] = {"parameters": {"dataset": dataset}}
    path = folder("executed") / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def pages() -> list[str]:
    return sorted(path.name for path in (folder("plots") / "notebooks").glob("*.html"))


def test_a_page_has_the_outputs_and_asks_for_nothing_from_outside():
    executed("21_gradcam", "cifar100")
    (folder("plots") / "own.png").write_bytes(b"png")
    (folder("executed").parent / "02.ipynb").write_text("{}")  # notebooks/ is the root's own
    report.convert_notebooks()
    page = (folder("plots") / "notebooks" / "21_gradcam.html").read_text()
    for text in ("A title", "53.5", "trained &lt;1 s&gt;", "data:image/png;base64,iVBORw0KGgo=", 'content="cifar100"'):
        assert text in page
    assert '<a href="https://colab.example/open">Open in Colab</a>' in page
    assert 'src="data:image/png;base64,cG5n"' in page
    assert "gone.png" not in page
    assert 'href="../../notebooks/02.ipynb"' in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert "default-src 'none'" in page


def test_only_finished_copies_that_are_newer_are_converted(monkeypatch):
    source = executed("a")
    executed("b.running")
    executed("c.failed")
    report.convert_notebooks()
    assert pages() == ["a.html"]
    target = folder("plots") / "notebooks" / "a.html"
    before = target.stat().st_ino
    report.convert_notebooks()
    assert target.stat().st_ino == before  # every write renames a new file
    os.utime(source, (target.stat().st_mtime + 5,) * 2)
    report.convert_notebooks()
    assert target.stat().st_ino != before


def test_a_faulty_notebook_is_named_and_the_others_are_converted(monkeypatch):
    told = []
    monkeypatch.setattr(report, "inform", told.append)
    executed("b")
    (folder("executed") / "a.ipynb").write_text("{")
    report.convert_notebooks()
    assert pages() == ["b.html"]
    assert len(told) == 1
    assert told[0].startswith("a.ipynb: not converted to HTML: ")


def test_pages_of_notebooks_that_are_gone_are_removed_and_a_users_own_stay():
    executed("a").touch()
    report.convert_notebooks()
    own = folder("plots") / "notebooks" / "own.html"
    own.write_text("mine")
    (folder("executed") / "a.ipynb").unlink()
    report.convert_notebooks()
    assert pages() == ["own.html"]
    assert not notebook_page.is_page(own)


def test_each_job_of_the_profiles_is_known_without_its_seed(root):
    jobs = report.profiles_by_job()
    assert "smoke" in jobs["01_teacher"]
    assert "laptop" in jobs["07_crd_resnet20_resnet8_cifar100"]
    assert not [name for name in jobs if name.endswith("_seed1")]

"""The gallery: finished, failed and missing runs on the page, and the escape of every text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pandas import DataFrame

from kdhelpers import artifacts
from kdhelpers.analysis.hypersphere_page import hypersphere_page
from kdhelpers.display import plots
from kdhelpers.display.html import Markup, curve, render
from kdhelpers.report.gallery import magnitude, number, write_gallery

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KD_ROOT", str(tmp_path))
    return tmp_path


def store(root: Path, name: str, top1: float = 50.0, status: str = "finished", error: str | None = None, **run) -> None:
    history = [
        {"epoch": 1, "lr": 0.05, "loss": 2.0, "ce": 1.5, "train_top1_pct": 20.0, "val_top1_pct": 25.0},
        {"epoch": 2, "lr": 0.05, "loss": 1.0, "ce": None, "train_top1_pct": 40.0, "val_top1_pct": 45.0},
    ]
    record = {
        "schema": 1,
        "name": name,
        "identity": f"{name:0<64}",
        "status": status,
        "error": error,
        "run": {
            "dataset": "cifar100",
            "role": "student",
            "model": "resnet8",
            "method": "si",
            "seed": 0,
            "epochs": 2,
            "batch_size": 64,
            "lr": 0.05,
            "optimizer": "sgd",
            "selection": "best_val",
            "hyperparameters": {},
            **run,
        },
        "environment": {"device": "cpu", "device_name": "A chip", "precision": "fp32"},
        "notebook": f"notebooks/executed/{name}.ipynb",
    }
    if status == "finished":
        record |= {
            "history": history,
            "selection": {"rule": "best_val", "epoch": 2},
            "model": {"parameters": 78_000, "macs": 12_000_000},
            "metrics": {"test_top1_pct": top1},
        }
    artifacts.save_json(artifacts.record_path(name), record)


class Page(HTMLParser):
    """Text, links and open tags of a page; fails if tags do not match."""

    def __init__(self, path: Path):
        super().__init__()
        self.text, self.links, self.open, self.tags, self.attributes = "", [], [], [], set()
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_without_records_the_page_names_the_first_command():
    page = Page(write_gallery())
    assert "python -m kdhelpers suite --profile smoke" in page.text
    assert "0 stored runs" in page.text


def test_table_has_mean_and_spread_and_the_best_student_in_bold(root: Path):
    store(root, "t", 60.0, role="teacher", model="resnet20")
    store(root, "a", 50.0)
    store(root, "b", 52.0, seed=1)
    store(root, "c", 55.0, method="lm", teacher="t", hyperparameters={})
    page = write_gallery().read_text()
    rows = [re.sub("<.*?>", "|", row) for row in re.findall("<tr.*?</tr>", page, re.DOTALL)]
    assert any("51.00 ± 1.41" in row for row in rows)  # standard deviation of 50 and 52 with n - 1
    assert re.findall(r"<td><b>(.*?)</b></td>", page) == ["55.00 (single run)"]
    assert "not evidence" not in page


def test_cards_show_figures_rule_budget_device_and_links_to_existing_files(root: Path):
    store(root, "a", 51.25)
    executed = artifacts.folder("executed") / "a.ipynb"
    page = Page(write_gallery())
    for text in ("51.25", "best_val, epoch 2", "2 epochs, batch 64, sgd, lr 0.05", "A chip, fp32", "78 k parameters"):
        assert text in page.text
    assert page.links == ["../json_results/a.json"]
    executed.write_text("{}")
    links = Page(write_gallery()).links
    assert links == ["../json_results/a.json", "../notebooks/executed/a.ipynb"]
    assert all((artifacts.folder("plots") / link).is_file() for link in links)


def test_digits_have_the_note_machinery_check_on_the_section_and_on_every_card(root: Path):
    store(root, "a", dataset="digits")
    store(root, "b", dataset="digits", seed=1)
    store(root, "c")
    page = write_gallery().read_text()
    assert (
        page.count('<span class="badge warn">this shows that the code works, it is not evidence for a method</span>')
        == 3
    )
    assert page.index("<h2>cifar100") < page.index("<h2>digits")


def test_failed_running_and_interrupted_runs_are_shown_as_such(root: Path):
    store(root, "a", status="failed", error="FloatingPointError: epoch 3: loss term kd is not finite")
    store(root, "b", status="running", seed=1)
    page = Page(write_gallery())
    assert "epoch 3: loss term kd is not finite" in page.text
    assert "interrupted" in page.text  # no process holds its lock
    assert "No run on this data is finished." in page.text
    store(root, "c", status="failed", error="interrupted; the same run continues")
    path = artifacts.record_path("c")
    artifacts.save_json(path, artifacts.load_json(path) | {"resumed": ["2026-11-21T02:30:00+00:00"]})
    page = Page(write_gallery())
    assert page.text.count("Its process ended early") == 2
    assert "Resumed: 2026-11-21T02:30:00+00:00" in page.text
    path.unlink()
    with artifacts.lock(artifacts.run_lock_path(f"{'b':0<64}")):
        assert "interrupted" not in Page(write_gallery()).text


def test_everything_is_escaped(root: Path):
    store(root, "a", model=HOSTILE, dataset=HOSTILE, optimizer=HOSTILE)
    store(root, "b", status="failed", error=HOSTILE, method="lm", seed=1)
    store(root, 'c" onclick="x', status=HOSTILE, role='" onclick="x', seed=HOSTILE)
    store(root, "d", seed=2)
    path = artifacts.record_path("d")
    artifacts.save_json(path, artifacts.load_json(path) | {"notes": [HOSTILE], "origin": {HOSTILE: HOSTILE}})
    for name in ('a"><script>&#.png', 'a" onerror="x.png', 'a" onerror="x.csv'):
        (artifacts.folder("plots") / name).write_bytes(b"")
    page = Page(write_gallery())
    assert "script" not in page.tags
    assert not [name for name in page.attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 4


def test_pictures_are_linked_with_their_data(root: Path):
    (artifacts.folder("plots") / "curves a.png").write_bytes(b"")
    (artifacts.folder("plots") / "curves a.csv").write_text("x\n")
    page = Page(write_gallery())
    assert page.links == ["curves%20a.png", "curves%20a.png", "curves%20a.csv"]


def test_interactive_pages_of_this_package_are_linked_and_no_others(root: Path):
    points = [{"network": "a", "label": 0, "x": 1.0, "y": 0.0, "z": 0.0, "kept_pct": 50.0}]
    plots.save_page(hypersphere_page(DataFrame(points), ["c"], f"resnet8 & {HOSTILE}"), "sphere+1")
    (artifacts.folder("plots") / "own.html").write_text("<title>kdhelpers, my notes</title>")
    (artifacts.folder("plots") / "latin.html").write_bytes(b"<title>\xe5</title>")
    (artifacts.folder("plots") / "folder.html").mkdir()
    for _ in range(2):  # the second time there is an index.html already
        page = Page(write_gallery())
        assert page.links == ["sphere%2B1.html"]
        assert f"Embeddings on the sphere · resnet8 & {HOSTILE}" in page.text
        assert "script" not in page.tags


def test_the_page_needs_nothing_from_outside(root: Path):
    store(root, "a")
    page = write_gallery().read_text()
    assert not re.search("https?://|<script|@import|url\\(", page)


def test_a_record_with_little_in_it_does_not_break_the_page(root: Path):
    artifacts.save_json(
        artifacts.record_path("bare"), {"schema": 1, "name": "bare", "identity": "0" * 64, "status": "running"}
    )
    (artifacts.folder("results") / "other.json").write_text(json.dumps([1]))
    assert "bare" in Page(write_gallery()).text


def test_curve_places_points_skips_gaps_and_draws_the_reference():
    chart = curve("accuracy", {"a": [0.0, None, float("nan"), 10.0], "b": [None]}, ("teacher", 20.0))
    lines = re.findall('points="(.*?)" class="(.*?)"', chart)
    assert lines[0] == (" ".join(f"{x},6.0" for x in ("6.0", "75.3", "144.7", "214.0")), "reference")
    assert lines[1] == ("6.0,114.0 214.0,60.0", "line0")  # 0 at the bottom, 10 half-way to the teacher's 20
    assert len(lines) == 2
    assert "not recorded" in curve("loss", {"a": [None]})


def test_templates_escape_texts_and_attributes_but_not_markup():
    chart = curve(f'{HOSTILE}" onload="x', {HOSTILE: [1.0]}, (HOSTILE, 2.0))
    assert not re.search('<script|onload="', chart)
    assert re.search('aria-label="&lt;script&gt;.*?&#34; onload=&#34;x over 1 epochs"', chart)
    assert chart.count("&lt;script&gt;") == 4  # title, label, line, reference
    assert f"<title>kdhelpers: {Markup.escape(HOSTILE)}</title>" in render("display/page.html.j2", title=HOSTILE)
    assert "<title>kdhelpers: <i>c</i></title>" in render("display/page.html.j2", title=Markup("<i>c</i>"))


def test_numbers():
    assert [magnitude(value) for value in (78_042, 12_345_678, 2.5e9, 12, None, float("nan"))] == [
        "78 k",
        "12.3 M",
        "2.5 G",
        "12",
        "–",
        "–",
    ]
    assert number(None, "{:.2f}") == "–"

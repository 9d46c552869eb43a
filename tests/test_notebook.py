"""What a notebook shows: executed in a real kernel where that matters, else the tables' text."""

import base64
import html
import json
import os
import re
import time
from types import SimpleNamespace

import nbformat
import pytest
import record_fixtures as fixtures
from nbclient import NotebookClient
from pydantic import BaseModel, Field

from kdhelpers import artifacts, notebook
from kdhelpers.progress import TerminalProgress

TRAINING = """
import sys, time
sys.path.insert(0, {tests!r})
import record_fixtures
from kdhelpers import notebook
live = notebook.LiveProgress()
history = record_fixtures.history(3, 50.0, ("ce", "kd"))
live.begin("student_lm <resnet8>", epochs=3, steps=500, done=0)
for epoch in range(3):
    for step in range(1, 501):
        live.step(step)
        time.sleep(0.0012)
    live.epoch(history[:epoch + 1])
live.end(record_fixtures.record(61.25, epochs=3))
"""
FIGURE = "from matplotlib.figure import Figure\nfigure = Figure()\nfigure.subplots().plot([1, 2])\nfigure"


class Updates(NotebookClient):
    """Counts the messages by which a display is changed."""

    def process_message(self, message, cell, cell_index):
        self.updates = getattr(self, "updates", 0) + (message["msg_type"] == "update_display_data")
        return super().process_message(message, cell, cell_index)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A notebook of three cells as nbclient leaves it: set-up, a training of about 2 seconds, a figure."""
    training = TRAINING.format(tests=os.path.dirname(__file__))
    cells = map(nbformat.v4.new_code_cell, ("from kdhelpers import notebook\nnotebook.setup()", training, FIGURE))
    source = nbformat.v4.new_notebook(cells=list(cells))
    root = tmp_path_factory.mktemp("root")
    os.environ["KD_ROOT"], before = str(root), os.environ.get("KD_ROOT")
    try:
        client = Updates(source, kernel_name="python3", timeout=120, startup_timeout=300)
        client.execute()
    finally:
        os.environ.pop("KD_ROOT") if before is None else os.environ.update(KD_ROOT=before)
    return SimpleNamespace(cells=source.cells, updates=client.updates, root=root)


def test_setup_prints_one_short_block(executed):
    assert [output["output_type"] for output in executed.cells[0].outputs] == ["stream"], executed.cells[0].outputs
    (output,) = executed.cells[0].outputs
    lines = output["text"].splitlines()
    assert [line.split()[0] for line in lines] == ["python", "device:", "artifacts:"]
    assert "torch" in lines[0]
    assert "kdhelpers 0." in lines[0]
    assert lines[2] == f"artifacts: pth_models, plots, json_results in {executed.root}"


def test_live_progress_leaves_one_small_output_with_its_last_state(executed):
    (output,) = executed.cells[1].outputs
    shown = output["data"]["text/html"]
    assert output["output_type"] == "display_data"
    assert len(json.dumps(output)) < 60_000
    assert "student_lm &lt;resnet8&gt;: finished · test top-1 61.25 %" in shown
    assert 'value="1500" max="1500"' in shown
    assert "ce 2.304 · val top-1 40.24 % · 18,000 images/s" in shown  # the record's last row: 61.25 (1 - 0.7^3)
    (picture,) = re.findall(r"data:image/png;base64,([\w+/=]+)", shown)
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert not re.search("<script|javascript:|widget", shown)
    assert output["data"]["text/plain"].startswith("student_lm <resnet8>: finished")


def test_live_progress_updates_a_few_times_a_second(executed):
    assert 4 <= executed.updates <= 16  # 4 at epochs and end, 2 a second for the 2 seconds (more when busy)


def test_a_figure_that_ends_a_cell_is_a_picture(executed):
    (output,) = executed.cells[2].outputs
    assert base64.b64decode(output["data"]["image/png"]).startswith(b"\x89PNG")


def test_outside_a_kernel_progress_is_the_terminals():
    assert type(notebook.LiveProgress()) is TerminalProgress


@pytest.fixture
def display(monkeypatch):
    """A stand-in for the kernel: what `LiveProgress` displays, in order."""
    pytest.importorskip("IPython")
    shown = []
    handle = SimpleNamespace(update=lambda content, raw: shown.append(content))

    def first(content, raw, display_id):
        shown.append(content)
        return handle

    monkeypatch.setattr(notebook, "_kernel_shell", lambda: True)
    monkeypatch.setattr("IPython.display.display", first)
    return shown


def test_live_progress_mid_training(display):
    live = notebook.LiveProgress()
    live.begin("student", epochs=8, steps=10, done=2)
    assert "student: epoch 3/8" in display[-1]["text/html"]
    assert 'value="20" max="80"' in display[-1]["text/html"]
    live._drawn = -1e9  # long ago
    live.step(5)
    assert len(display) == 2
    assert 'value="25" max="80"' in display[-1]["text/html"]
    assert " left" in display[-1]["text/html"]
    live.step(6)
    assert len(display) == 2


def test_live_progress_draws_the_curve_seldom_but_always_at_the_end(display, monkeypatch):
    drawn = []
    real = notebook.plots.live
    monkeypatch.setattr(notebook.plots, "live", lambda *given: drawn.append(given) or real(*given))
    history = fixtures.history(6)
    live = notebook.LiveProgress()
    live.begin("student", epochs=6, steps=1, done=0)
    for epoch in range(6):
        live.epoch(history[: epoch + 1])
    assert len(drawn) == 1  # six epochs within the two seconds
    live.end(fixtures.record(epochs=6))
    assert [len(rows) for rows, _ in drawn] == [1, 6]


def test_one_live_progress_serves_two_trainings(display):
    live = notebook.LiveProgress()
    for name in ("first", "second"):
        live.begin(name, epochs=1, steps=1, done=0)
        live.epoch(fixtures.history(1))
        live.end(fixtures.record(epochs=1))
    assert display[-1]["text/plain"].startswith("second: finished")
    assert "ce" in display[-1]["text/plain"]


def test_live_progress_costs_a_step_next_to_nothing(display):
    live = notebook.LiveProgress()
    live.begin("student", epochs=1, steps=10_000, done=0)
    started = time.perf_counter()
    for step in range(10_000):
        live.step(step)
    assert (time.perf_counter() - started) / 10_000 < 50e-6


class Settings(BaseModel):
    """A stand-in for Run."""

    model: str = "resnet8"
    epochs: int = Field(8, description="passes over the training split")
    teacher: str | None = None
    options: dict = {}


def text(styler):
    """A table as rows of its cells' text, and whether each row's first cell is bold."""
    page = styler.to_html()
    body = re.findall(r"<tr>(.*?)</tr>", page.split("<tbody>")[1], re.DOTALL)
    rows = [[html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in body]
    bold = set()
    for selectors, css in re.findall(r"((?:#\w+(?:,\s*)?)+) \{([^}]*)\}", page):
        if "font-weight: bold" in css:
            bold |= {int(number) for number in re.findall(r"row(\d+)_col0", selectors)}
    return rows, bold


def caption_of(styler):
    return html.unescape(re.search(r"<caption>(.*?)</caption>", styler.to_html()).group(1))


def test_run_table_has_non_defaults_first_and_bold():
    rows, bold = text(notebook.run_table(Settings(epochs=3, options={"stem": "cifar"})))
    assert rows == [["epochs", "3", "passes over the training split"], ["options", "stem=cifar", ""],
                    ["model", "resnet8", ""], ["teacher", "–", ""]]
    assert bold == {0, 1}


def test_run_table_of_a_run_knows_completed_options(root):
    from kdhelpers import Run

    run = Run(method="lm", teacher="teacher_resnet20_digits", hyperparameters={"temperature": 2.0})
    rows, bold = text(notebook.run_table(run))
    assert {rows[number][0] for number in bold} == {"method", "teacher", "hyperparameters"}
    assert ["hyperparameters", "temperature=2.0, ce_weight=0.5, kd_weight=0.5", "the method's own parameters"] in rows
    assert [row[0] for row in text(notebook.run_table(Run()))[0]] == list(Run.model_fields)


def test_run_table_takes_anything_with_model_dump():
    rows, _ = text(notebook.run_table(SimpleNamespace(model_dump=lambda: {"lr": 0.1})))
    assert rows == [["lr", "0.1", ""]]


def test_results_table_of_a_study(root):
    fixtures.store(*fixtures.study())
    styler = notebook.results_table("cifar100", highlight="student_lm_resnet8_cifar100_seed1")
    rows, bold = text(styler)
    assert [row[:5] for row in rows] == [
        ["teacher", "resnet20", "", "60.00 (single run)", "1"],
        ["LM (T=2.0)", "resnet8", "teacher_resnet20_cifar100", "53.00 (single run)", "1"],
        ["LM", "resnet8", "teacher_resnet20_cifar100", "52.00 ± 0.50", "3"],
        ["SI", "resnet8", "", "50.00 ± 1.00", "3"],
    ]
    assert rows[2][5:8] == ["+2.00", "+2.00 ± 0.50 (3 seeds)", "20"]
    assert rows[1][6] == "+3.00 (1 seed)"
    assert rows[3][5:8] == ["–", "–", "–"]
    assert bold == {1}  # not the teacher
    assert re.search(r"row2_col0[^{]*\{\s*background-color", styler.to_html())  # all three seeds are its setting
    for part in ("cifar100 · test top-1", "n = 1 to 3 seeds", "selection: best_val", "budget: 8 epochs, batch 64",
                 "device: CPU fp32", "bold: best", "shaded: student_lm_resnet8_cifar100_seed1"):
        assert part in caption_of(styler)


def test_results_table_shows_columns_for_what_varies(root):
    fixtures.store(fixtures.record(50.0), fixtures.record(90.0, dataset="digits", epochs=2, device="cuda"))
    styler = notebook.results_table()
    rows, bold = text(styler)
    assert rows[1][0] == "digits"
    assert rows[1][-2:] == ["2 epochs, batch 64", "NVIDIA H200 bf16"]
    assert not bold  # neither has a rival
    assert caption_of(styler).startswith("digits: machinery check, not evidence")


def test_results_table_without_runs_says_what_to_do(root):
    styler = notebook.results_table("cifar100")
    assert text(styler) == ([], set())
    assert "run notebooks 01_teacher" in caption_of(styler)


def test_results_table_refuses_to_highlight_a_run_that_is_not_there(root):
    fixtures.store(fixtures.record(50.0), fixtures.record(status="failed", **fixtures.LM))
    with pytest.raises(ValueError, match="highlight = student_lm_.*: not a finished run .*; known: student_si_"):
        notebook.results_table("cifar100", highlight="student_lm_resnet8_cifar100")


def test_texts_of_users_are_escaped(root):
    fixtures.store(fixtures.record(50.0, dataset="<b>mine</b>"), fixtures.record(50.0, model="<i>"))
    assert "<b>mine" not in notebook.results_table().to_html()
    assert "<i>" not in notebook.results_table().to_html()


def test_saved_lists_files_that_exist(root):
    fixtures.store(fixtures.record(50.0))
    name = "student_si_resnet8_cifar100"
    artifacts.write_atomic(artifacts.weights_path(name), bytes(3 * 2**20))
    trained = SimpleNamespace(weights_path=artifacts.weights_path(name), record_path=artifacts.record_path(name),
                              record=artifacts.load_record(name) | {"notebook": "executed/none.ipynb"}, cached=True)
    styler = notebook.saved(trained)
    rows, _ = text(styler)
    assert [row[0] for row in rows] == ["weights", "result record"]  # no sidecar, no executed copy
    assert rows[0][1:] == [f"pth_models/{name}.pth", "3.0 MiB"]
    assert rows[1][1] == f"json_results/{name}.json"
    assert rows[1][2].endswith(" KiB")
    assert "trained before" in caption_of(styler)

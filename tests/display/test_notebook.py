"""The output in a notebook: in a real kernel if that matters, else with a stand-in for its display."""

import base64
import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import record_fixtures as fixtures
import torch
from nbclient import NotebookClient

from kdhelpers import messages
from kdhelpers.display import notebook, progress
from kdhelpers.display.progress import TerminalProgress

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
    training = TRAINING.format(tests=str(Path(__file__).parents[1]))
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


@pytest.mark.parametrize(
    ("device", "text"), [("cpu", "CPU, 1 thread, fp32 (no native bf16)"), ("mps", "Apple M2 GPU, fp32")]
)
def test_the_threads_are_those_of_a_cpu(monkeypatch, device, text):
    monkeypatch.setattr(notebook, "pick_device", lambda: torch.device(device))
    monkeypatch.setattr(notebook, "resolve_precision", lambda precision, device: "fp32")
    monkeypatch.setattr("kdhelpers.device.cpu_name", lambda: "Apple M2")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert notebook.device_text() == text


def test_live_progress_leaves_text_and_picture_with_their_last_state(executed):
    text, picture = executed.cells[1].outputs
    html = text["data"]["text/html"]
    assert text["output_type"] == picture["output_type"] == "display_data"
    assert len(json.dumps(text)) < 2_000  # sent twice a second
    assert len(json.dumps(picture)) < 60_000
    assert "student_lm &lt;resnet8&gt;: finished · test top-1 61.25 %" in html
    assert 'value="1500" max="1500"' in html
    assert "ce 2.304 · val top-1 40.24 % · 18,000 images/s" in html  # the record's last row: 61.25 (1 - 0.7^3)
    assert not re.search("<script|javascript:|widget", html)
    assert text["data"]["text/plain"].startswith("student_lm <resnet8>: finished")
    (image,) = re.findall(r"data:image/png;base64,([\w+/=]+)", picture["data"]["text/html"])
    assert base64.b64decode(image).startswith(b"\x89PNG")
    assert picture["data"]["text/plain"] == "losses and accuracy"


def test_live_progress_updates_a_few_times_a_second(executed):
    assert 4 <= executed.updates <= 16  # 4 at epochs and end, 2 a second for the 2 seconds (more when busy)


def test_a_figure_that_ends_a_cell_is_a_picture(executed):
    (output,) = executed.cells[2].outputs
    assert base64.b64decode(output["data"]["image/png"]).startswith(b"\x89PNG")


def test_outside_a_kernel_progress_is_the_terminals():
    assert type(notebook.LiveProgress()) is TerminalProgress


class Shown(list):
    """A stand-in for the kernel: the texts that `LiveProgress` displays, in order; apart from them its pictures."""

    def __init__(self):
        self.pictures, self.outputs = [], []

    def display(self, content, raw, display_id):
        kind = self if "<progress" in content["text/html"] else self.pictures
        kind.append(content)
        self.outputs.append("picture" if kind is self.pictures else "text")
        return SimpleNamespace(update=lambda content, raw: kind.append(content))


@pytest.fixture
def display(monkeypatch):
    pytest.importorskip("IPython")
    shown = Shown()
    monkeypatch.setattr(notebook, "_kernel_shell", lambda: True)
    monkeypatch.setattr("IPython.display.display", shown.display)
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


@pytest.fixture
def clock(monkeypatch):
    """A clock that drawing a picture advances by 0.2 s; `drawn` has the number of epochs in each picture."""
    clock = SimpleNamespace(now=50.0, drawn=[], monotonic=lambda: clock.now)

    def png(rows, dots_per_inch):
        clock.now += 0.2
        clock.drawn.append(len(rows))
        return b"picture"

    monkeypatch.setattr(notebook, "time", clock)
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(notebook.plots, "live", lambda history, epochs: history)
    monkeypatch.setattr(notebook.plots, "png", png)
    return clock


def train(live, clock, epochs, seconds, steps=10):
    """The calls of a training with epochs of `seconds`."""
    history = fixtures.history(epochs)
    live.begin("student", epochs, steps, 0)
    for epoch in range(epochs):
        for step in range(1, steps + 1):
            clock.now += seconds / steps
            live.step(step)
        live.epoch(history[: epoch + 1])
    live.end(fixtures.record(epochs=epochs))


@pytest.mark.parametrize(("epochs", "seconds"), [(240, 1), (60, 30), (2000, 0.05), (6, 2)])
def test_pictures_take_a_second_and_one_percent_of_the_time_and_the_last_is_whole(display, clock, epochs, seconds):
    train(notebook.LiveProgress(), clock, epochs, seconds)
    between = clock.drawn[:-1]  # the last is drawn in any case
    allowed = 1 + 0.01 * epochs * seconds
    assert len(between) * 0.2 <= allowed + 0.2
    assert len(between) >= min(epochs, epochs * seconds / 2, allowed / 0.2) - 2
    assert clock.drawn[0] == 1
    assert clock.drawn[-1] == epochs


def test_a_picture_is_sent_once_and_below_the_text(display, clock):
    train(notebook.LiveProgress(), clock, epochs=100, seconds=1)
    assert display.outputs == ["text", "picture"]
    assert len(display.pictures) == len(clock.drawn) < 15
    assert len(display) > 200
    assert not any("data:image" in content["text/html"] for content in display)


def test_a_training_that_fails_before_its_first_epoch_has_no_picture(display):
    live = notebook.LiveProgress()
    live.begin("student", epochs=2, steps=1, done=0)
    live.end({"name": "student", "status": "failed", "error": "OSError: disk", "history": []})
    assert display.outputs == ["text"]


def test_one_live_progress_serves_two_trainings(display):
    live = notebook.LiveProgress()
    for name in ("first", "second"):
        live.begin(name, epochs=1, steps=1, done=0)
        live.epoch(fixtures.history(1))
        live.end(fixtures.record(epochs=1))
    assert display.outputs == ["text", "picture"] * 2
    assert display[-1]["text/plain"].startswith("second: finished")
    assert "ce" in display[-1]["text/plain"]


def test_live_progress_costs_a_step_next_to_nothing(display):
    live = notebook.LiveProgress()
    live.begin("student", epochs=1, steps=10_000, done=0)
    started = time.perf_counter()
    for step in range(10_000):
        live.step(step)
    assert (time.perf_counter() - started) / 10_000 < 50e-6


def test_a_loaded_run_has_a_full_bar_and_its_date(display):
    notebook.LiveProgress().end(fixtures.record(61.25, epochs=3))
    page = display[-1]["text/html"]
    assert "student_si_resnet8_cifar100: loaded: trained before (2026-11-21 03:00 UTC) · test top-1 61.25 %" in page
    assert 'value="1" max="1"' in page
    assert display.outputs == ["text", "picture"]
    assert "data:image/png" in display.pictures[-1]["text/html"]


def test_a_resumed_run_names_its_first_epoch(display):
    live = notebook.LiveProgress()
    live.begin("student", epochs=8, steps=10, done=2)
    assert "went on from epoch 3" in display[-1]["text/html"]
    live.end(fixtures.record(61.25, epochs=8))
    assert "finished" in display[-1]["text/html"]
    assert "went on from epoch 3" in display[-1]["text/html"]


def test_notes_are_grey_and_failures_red(display):
    notebook.LiveProgress().end(fixtures.record(61.25) | {"notes": ["leakage: <test> images"]})
    assert '<div style="color: #767676">leakage: &lt;test&gt; images</div>' in display[-1]["text/html"]
    assert "#B03A2E" not in display[-1]["text/html"]
    notebook.LiveProgress().end(fixtures.record(status="failed"))
    assert '<div style="color: #B03A2E">student' in display[-1]["text/html"]


def test_information_is_on_stdout_in_a_kernel_alone(monkeypatch, capsys):
    messages.inform("first")
    monkeypatch.setattr(messages, "kernel_shell", lambda: True)
    messages.inform("second")
    TerminalProgress().end(fixtures.record(61.25))
    output = capsys.readouterr()
    assert output.err == "first\n"
    assert output.out.startswith("second\nstudent_si_resnet8_cifar100: loaded: trained before")


def test_another_checkout_around_the_notebook_is_said(tmp_path, monkeypatch, capsys, root):
    folder = tmp_path / "copy" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    notebook.setup()
    text = capsys.readouterr().out
    assert f"in {notebook.PACKAGE}\n" in text
    assert "warning" not in text
    (tmp_path / "copy" / "kdhelpers").mkdir()
    (tmp_path / "copy" / "kdhelpers" / "__init__.py").write_text("")
    notebook.setup()
    said = f"warning: the notebook lies in {tmp_path / 'copy'}, but {notebook.PACKAGE} is imported"
    assert said in capsys.readouterr().out
    monkeypatch.chdir(notebook.PACKAGE.parent)
    assert notebook.other_checkout() is None

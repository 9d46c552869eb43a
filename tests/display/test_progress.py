"""Progress on a terminal and in a log: texts and redraws."""

import io
import sys

import pytest
import record_fixtures as fixtures

from kdhelpers.display import progress
from kdhelpers.display.progress import (
    Progress,
    TerminalProgress,
    TimedProgress,
    duration,
    loss_terms,
    record_text,
    row_text,
)


class Clock:
    """Stands in for the time module."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Counter(TimedProgress):
    draws = 0

    def draw(self):
        self.draws += 1


def replay(watcher, epochs=2, steps=3):
    """The calls `fit` makes."""
    history = fixtures.history(epochs, terms=("ce", "kd"))
    watcher.begin("student", epochs, steps, 0)
    for epoch in range(epochs):
        for step in range(1, steps + 1):
            watcher.step(step)
        watcher.epoch(history[: epoch + 1])
    watcher.end(fixtures.record(61.25, epochs=epochs))


def test_the_base_ignores_every_call():
    replay(Progress())


def test_loss_terms_are_the_columns_that_are_not_measurements():
    row = fixtures.history(1, terms=("ce", "crd"))[0]
    assert loss_terms(row) == {"ce": row["ce"], "crd": row["crd"]}
    assert loss_terms({"epoch": 1, "lr": 0.1, "loss": 2.0}) == {"loss": 2.0}
    assert loss_terms({"epoch": 1}) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.25, "4.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_texts_leave_out_missing_values():
    assert row_text({"epoch": 1, "ce": 1.23456, "val_top1_pct": None}) == "ce 1.235"
    assert row_text({"ce": 1.0, "kd": 0.5, "val_top1_pct": 45.204, "images_per_second": 18000.4}) == (
        "ce 1 · kd 0.5 · val top-1 45.20 % · 18,000 images/s"
    )
    assert record_text(fixtures.record(61.25)) == (
        "finished · test top-1 61.25 % · epoch 8 chosen by best_val · trained in 20.0 s"
    )
    assert record_text(fixtures.record(status="failed")) == "failed: FloatingPointError: kd is not finite in epoch 3"
    reason = "interrupted; the same run continues from its last finished epoch"
    assert record_text(fixtures.record(status="failed") | {"error": reason}) == reason
    assert record_text({}) == "ended"


def test_steps_redraw_by_time_not_by_number(clock):
    watcher = Counter()
    watcher.begin("student", epochs=1, steps=1000, done=0)
    for step in range(1, 1001):
        clock.now += 0.002
        watcher.step(step)
    assert 7 <= watcher.draws <= 9  # 2 seconds at 4 a second, and the one at the begin


def test_eta_counts_only_this_session(clock):
    watcher = Counter()
    watcher.begin("student", epochs=10, steps=5, done=6)  # resumed: 20 steps to go
    assert watcher.eta_seconds() is None
    clock.now += 8
    watcher.step(4)
    assert watcher.eta_seconds() == pytest.approx(8 / 4 * 16)
    watcher.epoch(fixtures.history(7))
    assert (watcher.done, watcher.count) == (7, 35)


def test_a_log_gets_a_line_per_epoch(capsys):
    replay(TerminalProgress(), epochs=3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("student: epoch 1/3 · ce ")
    assert " · kd " in lines[0]
    assert lines[0].endswith(" left")
    assert "epoch 3/3" in lines[2]
    assert not lines[2].endswith(" left")
    assert lines[3].startswith("student: finished · test top-1 61.25 %")


def test_a_terminal_gets_one_bar_over_the_run(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    replay(TerminalProgress(), epochs=2)
    output = screen.getvalue()
    for part in ("student epoch 1/2", "student epoch 2/2", " 50%|", "100%|", "val top-1", "images/s"):
        assert part in output
    assert output.count("\n") == 1  # the bar is wiped, the last line says how the run ended
    assert output.endswith("trained in 20.0 s\n")


def test_end_without_begin_prints_the_result_of_a_stored_run(capsys):
    TerminalProgress().end(fixtures.record(61.25))
    assert capsys.readouterr().err.startswith(
        "student_si_resnet8_cifar100: loaded: trained before (2026-11-21 03:00 UTC) · "
    )


def test_every_loaded_run_is_printed_under_its_own_name(capsys):
    progress = TerminalProgress()
    for name in ("first", "second"):
        progress.end(fixtures.record(61.25, name=name))
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["first", "second"]

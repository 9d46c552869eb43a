"""What a kill leaves: temporary files, checkpoints of finished runs, parts of downloads, folders of rehearsals."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from training_fixtures import QUICK, weights

from kdhelpers import Run, artifacts, fit
from kdhelpers.artifacts.files import TEMPORARY_SECONDS
from kdhelpers.display.progress import Progress
from kdhelpers.suite import rehearsal, replay, report
from kdhelpers.training.checkpoint import Checkpoint


@pytest.mark.parametrize(
    ("age", "stays"), [(60, True), (TEMPORARY_SECONDS + 60, False), (-9 * TEMPORARY_SECONDS, False)]
)
def test_a_temporary_file_is_deleted_after_an_hour_also_by_a_clock_that_jumped_back(tmp_path, age, stays):
    left = tmp_path / ".record.json.123.456.tmp"
    left.write_text("half")
    os.utime(left, (time.time() - age, time.time() - age))
    artifacts.save_json(tmp_path / "other.json", {})
    assert left.is_file() == stays


def test_hidden_files_of_a_user_stay(tmp_path):
    for name in (".notes.tmp", ".a.b.tmp", "record.json.123.456.tmp"):
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    artifacts.save_json(tmp_path / "other.json", {})
    assert len(list(tmp_path.iterdir())) == 4


def test_weights_are_described_before_they_are_there(root, data, monkeypatch):
    seen, real = [], artifacts.write_atomic

    def watch(path, content):
        if Path(path).suffix == ".pth":
            described = artifacts.load_json(Path(path).with_suffix(".json"))["sha256"]
            seen.append(real(path, content) and described == artifacts.sha256(path))
            return path
        return real(path, content)

    monkeypatch.setattr(artifacts, "write_atomic", watch)
    fit(Run(**QUICK | {"epochs": 1}), data, progress=Progress())
    assert seen == [True]


def test_the_checkpoint_that_a_kill_left_of_a_finished_run_is_deleted(root, data):
    run = Run(**QUICK | {"epochs": 1})
    trained = fit(run, data, progress=Progress())
    checkpoint = Checkpoint(trained.record["identity"])
    best = {"epoch": 1, "val_top1_pct": 1.0, "weights": {"x": torch.zeros(1)}}
    checkpoint.keep({"epochs_done": 1, "best": best}, write=True)
    checkpoint.close()
    assert checkpoint.path.is_file()
    again = fit(run, data, progress=Progress())
    assert again.cached
    assert weights(again)
    assert not list(checkpoint.path.parent.glob("*.p*"))


REHEARSAL = """
import os, time
from kdhelpers.suite.rehearsal import scratch_root
with scratch_root():
    open(os.environ["KD_ROOT"] + "/weights", "w").close()
    print(os.environ["KD_ROOT"], flush=True)
    time.sleep(300)
"""


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A rehearsal in another process, and its folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path), "KD_ROOT": str(tmp_path / "root")}
    with subprocess.Popen([sys.executable, "-c", REHEARSAL], stdout=subprocess.PIPE, text=True, env=environment) as run:
        yield run, Path(run.stdout.readline().strip())
        run.kill()


def test_a_rehearsal_that_sigterm_ends_removes_its_folder(started):
    process, folder = started
    assert folder.name.startswith(rehearsal.PREFIX)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 128 + signal.SIGTERM
    assert not folder.exists()


def test_the_next_rehearsal_removes_the_folder_of_a_killed_one_and_no_other(started, monkeypatch, tmp_path):
    process, folder = started
    monkeypatch.setenv("KD_ROOT", str(tmp_path / "root"))
    with rehearsal.scratch_root():
        assert (folder / "weights").is_file()
    process.kill()
    process.wait(120)
    assert folder.exists()
    with rehearsal.scratch_root():
        assert not folder.exists()


def test_a_page_of_a_notebook_is_renewed_though_the_clock_was_ahead_when_it_was_made(root, monkeypatch):
    made = []

    def page(source, target):
        made.append(target.name)
        return artifacts.write_atomic(target, b"page")

    monkeypatch.setattr("kdhelpers.suite.notebook_page.notebook_page", page)
    source = artifacts.folder("executed") / "a.ipynb"
    source.write_text("{}")
    os.utime(source, (time.time() + 9e6,) * 2)
    report.convert_notebooks()
    report.convert_notebooks()
    os.utime(source, (time.time(),) * 2)  # the clock is right again, and the notebook ran again
    report.convert_notebooks()
    assert made == ["a.html"] * 2


def test_a_job_waits_for_the_same_job_of_a_suite_that_was_killed(tmp_path, monkeypatch):
    """Else the earlier one, which writes its copy as it ends, may write over a finished copy."""
    written, copy = threading.Event(), tmp_path / "a.running.ipynb"
    monkeypatch.setattr(replay, "_execute", lambda *_: written.set())
    with artifacts.lock(tmp_path / "a.running.lock"):
        later = threading.Thread(target=replay.replay, args=("a.ipynb", str(copy), {}, ""))
        later.start()
        assert not written.wait(0.3)
    later.join()
    assert written.is_set()

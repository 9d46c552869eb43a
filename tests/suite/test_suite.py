"""Suites of tiny notebooks through real kernels: failures, kills, interrupts, continuing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from suite_fixtures import FakeWorkers, gone, job, make_root, profile, state, wait_for

from kdhelpers.suite import run_suite
from kdhelpers.suite.profiles import load_profile
from kdhelpers.suite.replay import end_marker
from kdhelpers.suite.schedule import Suite
from kdhelpers.suite.workers import job_environment, replay_process


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_root(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """One real suite run over good and bad notebooks: (root, printed text, whether every job finished)."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        root = make_root(tmp_path_factory.mktemp("suite"), monkeypatch)
        jobs = [
            job("after", needs=["middle"]),
            job("middle", needs=["raises"]),
            job("raises", "raises"),
            job("killed", "killed"),
            job("leaves", "leaves"),
            job("one"),
            job("two", parameters={"name": "two", "seed": 7}, needs=["one"]),
        ]
        monkeypatch.setenv("JUPYTER_PATH", "/nowhere")
        with contextlib.redirect_stdout(io.StringIO()) as output:
            finished = run_suite(profile(root, *jobs), workers=2)
        return root, output.getvalue(), finished


def command(root: Path, *arguments: str) -> subprocess.Popen:
    checkout = Path(__file__).resolve().parents[2]
    environment = os.environ | {"KD_ROOT": str(root), "PYTHONPATH": str(checkout)}
    return subprocess.Popen(
        [sys.executable, "-m", "kdhelpers", *arguments],
        env=environment,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_failed_job_fails_its_dependants_and_no_other(finished):
    root, output, all_finished = finished
    assert not all_finished
    jobs = state(root)
    assert {name: status["state"] for name, status in jobs.items()} == {
        "after": "blocked",
        "middle": "blocked",
        "raises": "failed",
        "killed": "failed",
        "leaves": "failed",
        "one": "done",
        "two": "done",
    }
    reason = "ValueError: rate = 0.1: too fast"
    assert jobs["raises"]["error"] == reason
    assert jobs["after"]["error"] == jobs["middle"]["error"] == f"needs raises, which failed: {reason}"
    lines = output.splitlines()
    assert f"after: blocked  needs raises, which failed: {reason}  (" in output
    assert [line[-13:] for line in lines if line.startswith(("one: done", "two: done"))] == [
        "(1 of 7 done)",
        "(2 of 7 done)",
    ]
    assert [line.split()[0] for line in lines[-8:]] == ["job", *jobs]
    assert re.fullmatch(r"two +done +\d+ s  CE \(no teacher\) 62.50 %", lines[-1])


def test_a_killed_kernel_and_an_early_exit_are_failures(finished):
    """papermill's own metadata says `completed` for both."""
    root, *_ = finished
    jobs, executed = state(root), root / "notebooks" / "executed"
    assert [jobs[name]["exit_code"] for name in ("killed", "leaves")] == [138, 1]
    assert "the kernel died" in jobs["killed"]["error"]
    assert "stopped before its last cell" in jobs["leaves"]["error"]
    assert sorted(path.name for path in executed.glob("*.ipynb")) == [
        "killed.failed.ipynb",
        "leaves.failed.ipynb",
        "one.ipynb",
        "raises.failed.ipynb",
        "two.ipynb",
    ]


def test_the_kernel_runs_here_and_knows_its_executed_copy(finished):
    root, *_ = finished
    record = json.loads((root / "json_results" / "two.json").read_text())
    assert record["notebook"] == "notebooks/executed/two.ipynb"
    assert Path(record["interpreter"]) == Path(sys.executable)
    assert Path(record["folder"]) == root / "notebooks"
    assert record["run"]["seed"] == 7
    assert state(root)["two"]["records"] == ["two"]


def test_finished_jobs_are_kept_until_something_they_stand_on_changes(finished, monkeypatch: pytest.MonkeyPatch):
    root, *_ = finished
    monkeypatch.setenv("KD_ROOT", str(root))
    started: list[str] = []

    def again(**options) -> list[str]:
        """The jobs that a suite would start now, each failing at once, so that the stored state stays `done` or not."""
        started.clear()
        suite = Suite("tiny", load_profile("tiny", only=["two"]), **options)
        stored = suite.state_path.read_bytes()
        suite.run(FakeWorkers(started, exit_code=1))
        suite.state_path.write_bytes(stored)
        return started

    assert again() == []
    assert again(force=frozenset(["two"])) == ["two"]
    weights = root / "pth_models" / "one.pth"
    weights.unlink()
    assert again() == ["one"]  # `two` needs it and would follow
    weights.touch()
    copy = root / "notebooks" / "executed" / "two.ipynb"
    content = copy.read_text()
    copy.write_text(content.replace(end_marker(copy), "another"))
    assert again() == ["two"]
    copy.write_text(content)
    assert again() == []


def test_ctrl_c_ends_the_kernels_and_the_same_suite_continues(root: Path, capsys: pytest.CaptureFixture):
    name = profile(root, job("sleeps", "sleeps"), job("after", needs=["sleeps"]))
    process = command(root, "suite", "--profile", name, "--workers", "1")
    kernel = wait_for(root / "pid")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command continues" in errors
    assert gone(kernel)
    assert {key: status["state"] for key, status in state(root).items()} == {
        "sleeps": "interrupted",
        "after": "waiting",
    }
    assert Suite(name, load_profile(name)).run(FakeWorkers(started := []))
    assert started == ["sleeps", "after"]


def test_a_job_ends_with_the_suite_that_ordered_it(root: Path):
    """Also where the suite was killed: the job's stdin is then closed by the system."""
    order = {
        "notebook": str(root / "notebooks/sleeps.ipynb"),
        "copy": str(root / "copy.ipynb"),
        "parameters": {},
        "fingerprint": "",
    }
    process = replay_process(order, job_environment("x"), str(root / "log"))
    kernel = wait_for(root / "pid")
    process.stdin.close()
    assert process.wait(20) == 130
    assert gone(kernel)

"""What goes wrong in a job: dead kernels, files that are gone or cannot be written, outputs without end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import nbformat
import pytest
from suite_fixtures import FakeWorkers, gone, job, make_root, profile, state, wait_for, write_notebook

from kdhelpers.suite import workers as workers_module
from kdhelpers.suite.copies import reason
from kdhelpers.suite.engine import CELL_CHARACTERS, death
from kdhelpers.suite.profiles import load_profile
from kdhelpers.suite.schedule import Suite
from kdhelpers.suite.workers import LocalWorkers, job_environment, replay_process

CELLS = {
    "ends": """
import os, subprocess
child = subprocess.Popen(["sleep", "100"], start_new_session=True)
open(os.environ["KD_ROOT"] + "/pid", "w").write(str(child.pid))
os._exit(3)""",
    "exits": "exit()",
    "interrupts": "raise KeyboardInterrupt",
    "prints": f"""
import os
print("first", flush=True); os.write(1, b"\\xff not UTF-8")
for _ in range(30): print("x" * {CELL_CHARACTERS // 20})""",
    "foreign": "1",
    "deleted": "1",
    "damaged": "1",
    "in_the_way": "1",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_root(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory):
    """A real suite of the notebooks above: its root and the states of its jobs."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        root = make_root(tmp_path_factory.mktemp("failures"), monkeypatch)
        for name, cell in CELLS.items():
            write_notebook(root / "notebooks", name, ["a = 1", cell, "'last'"])
        foreign = nbformat.read(root / "notebooks" / "foreign.ipynb", 4)
        foreign.metadata["kernelspec"] = {"name": "gone", "display_name": "A kernel that is not installed"}
        nbformat.write(foreign, root / "notebooks" / "foreign.ipynb")
        jobs = [job(name, name, parameters={"a": 2}) for name in CELLS] + [job("needy", needs=["ends"]), job("good")]
        suite = Suite("tiny", load_profile(profile(root, *jobs)))
        (root / "notebooks" / "deleted.ipynb").unlink()
        (root / "notebooks" / "damaged.ipynb").write_text('{"cells": [' + "x" * 5000)
        (root / "notebooks" / "executed" / "in_the_way.log").mkdir(parents=True)
        assert not suite.run(LocalWorkers(2))
        return root, state(root)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("ends", "the kernel ended with exit code 3; does a cell call os._exit()?"),
        ("exits", "a cell calls exit(), which ends the kernel"),
        ("interrupts", "KeyboardInterrupt"),
        ("deleted", "FileNotFoundError: "),
        ("damaged", "NotJSONError: "),
        ("in_the_way", "OSError: cannot write "),
        ("needy", "needs ends, which failed: the kernel ended with exit code 3"),
    ],
)
def test_each_failure_has_its_reason_in_one_short_line(failed, name: str, error: str):
    _, jobs = failed
    assert jobs[name]["state"] == ("blocked" if name == "needy" else "failed")
    assert jobs[name]["error"].startswith(error)
    assert "\n" not in jobs[name]["error"]
    assert len(jobs[name]["error"]) <= 510


def test_the_others_are_done_also_with_a_kernel_that_is_not_installed(failed):
    _, jobs = failed
    assert {name for name, status in jobs.items() if status["state"] == "done"} == {"prints", "foreign", "good"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process that left its parents is lost")
def test_what_a_dead_kernel_had_started_has_ended(failed):
    root, _ = failed
    assert gone(wait_for(root / "pid"))


def test_outputs_without_end_are_cut(failed):
    root, _ = failed
    executed = root / "notebooks" / "executed" / "prints.ipynb"
    texts = ["".join(output.get("text", "")) for output in json.loads(executed.read_bytes())["cells"][3]["outputs"]]
    assert any(text.startswith("first\n") for text in texts)
    assert sum("outputs over 20,000,000 characters of a cell are left out" in text for text in texts) == 1
    for path in (executed, executed.with_suffix(".log")):
        assert path.stat().st_size < 1.5 * CELL_CHARACTERS


def test_the_exit_code_of_a_kernel_names_the_cause():
    assert death(-signal.SIGKILL) == "the kernel died of SIGKILL (out of memory, or killed from outside?)"
    assert death(-signal.SIGSEGV) == "the kernel died of SIGSEGV (a crash in compiled code)"
    assert death(-signal.SIGABRT) == "the kernel died of SIGABRT"
    assert death(-99) == "the kernel died of signal 99"


def test_the_reason_is_the_last_line_of_the_job_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = tmp_path / "log"
    log.write_bytes(b"error: printed by a cell\n\xff\n" + b"x" * 10**6 + b"\nerror: the reason\nan after-thought\n")
    assert reason(log, 1) == "the reason"
    assert reason(log, -9) == f"exit code -9, killed by signal 9 (out of memory?), no end marker; see {log}"
    log.unlink()
    assert reason(log, 1) == f"exit code 1, no end marker; see {log}"  # a task of Ray that never started
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 0))
    assert reason(log, 1) == f"exit code 1, no end marker, the disk of {tmp_path} is full; free some space; see {log}"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is always full")
def test_a_full_disk_for_the_executed_copy_is_the_reason(root: Path):
    copy, log = root / "copy.ipynb", root / "log"
    copy.symlink_to("/dev/full")
    order = {"notebook": str(root / "notebooks/good.ipynb"), "copy": str(copy), "parameters": {}, "fingerprint": ""}
    process = replay_process(order, job_environment("x"), str(log))
    assert process.wait(120) == 1
    assert reason(log, 1) == "OSError: [Errno 28] No space left on device"


def test_a_kernel_that_never_starts_is_given_up(root: Path):
    home = root / "jupyter" / "kernels" / "python3"
    home.mkdir(parents=True)
    kernel = [sys.executable, "-c", "import time; time.sleep(100)", "{connection_file}"]
    (home / "kernel.json").write_text(json.dumps({"argv": kernel, "display_name": "deaf", "language": "python"}))
    code = (
        "import sys; from kdhelpers.suite import replay; replay.START_SECONDS = 1; "
        "sys.exit(replay.replay(sys.argv[1], sys.argv[2], {}, ''))"
    )
    command = [sys.executable, "-c", code, str(root / "notebooks/good.ipynb"), str(root / "copy.ipynb")]
    environment = job_environment("x") | {"JUPYTER_PATH": str(root / "jupyter")}
    ended = subprocess.run(command, env={**environment}, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "error: RuntimeError: Kernel didn't respond in 1 seconds" in ended.stdout


def test_a_job_that_cannot_start_fails_alone(root: Path):
    class Broken(FakeWorkers):
        def start(self, job, *rest):
            if job.name == "a":
                raise BlockingIOError(11, "Resource temporarily unavailable")
            return super().start(job, *rest)

    suite = Suite("tiny", load_profile(profile(root, job("a"), job("b"), job("needy", needs=["a"]))))
    assert not suite.run(Broken([]))
    assert [status.state for status in suite.status.values()] == ["failed", "done", "blocked"]
    assert suite.status["a"].error == "BlockingIOError: [Errno 11] Resource temporarily unavailable"


def test_a_job_after_the_death_of_the_warm_process_starts_another_one(root: Path, monkeypatch: pytest.MonkeyPatch):
    made = []

    class Warm:
        def __init__(self, _environment):
            self.ended = False
            made.append(self)

        def has_ended(self):
            return self.ended

        def start(self, *_):
            return self

    monkeypatch.setattr(workers_module, "WarmProcess", Warm)
    workers = LocalWorkers(3)
    workers.forks = True
    handles = [workers.start(None, {}, "", "") for _ in range(2)]
    made[0].ended = True
    handles.append(workers.start(None, {}, "", ""))
    assert [process for _, process in handles] == [made[0], made[0], made[1]]
    assert not workers.free()

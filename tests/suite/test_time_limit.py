"""The time limit of a job: how it is written, when it ends the job, and that nothing of the job is left."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from suite_fixtures import FakeWorkers, gone, job, make_root, profile, state, wait_for, write_notebook

from kdhelpers.suite import run_suite
from kdhelpers.suite import schedule as schedule_module
from kdhelpers.suite.profiles import limited, load_profile
from kdhelpers.suite.rehearsal import Estimate
from kdhelpers.suite.schedule import Suite
from kdhelpers.suite.terminal import over_their_limit
from kdhelpers.suite.times import limit_text, seconds_of
from kdhelpers.suite.workers import LocalWorkers

HANGS = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = '''import os, signal, time
[signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]
os.setsid()
open(os.environ["KD_ROOT"] + "/child", "w").write(str(os.getpid()))
time.sleep(100)'''
subprocess.run([sys.executable, "-c", f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"])
open(os.environ["KD_ROOT"] + "/pid", "w").write(str(os.getpid()))
while True: pass
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_root(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("text", "seconds", "shortest"),
    [
        ("90s", 90, "1.5min"),
        ("45 min", 2700, "45min"),
        ("1.5h", 5400, "1.5h"),
        ("2d", 172800, "2d"),
        ("0.5s", 0.5, "0.5s"),
    ],
)
def test_a_time_has_a_unit(text: str, seconds: float, shortest: str):
    assert seconds_of(text) == seconds
    assert limit_text(seconds) == shortest
    assert seconds_of(shortest) == seconds


@pytest.mark.parametrize("text", ["90", 90, "", "h", "2 hours", "-1h", "0s", "1e3s", "nans", "1h30min"])
def test_another_text_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"time_limit = .*: is not a time with its unit; write for instance 90s"):
        seconds_of(text)


def test_the_limit_of_the_profile_comes_before_that_of_the_command(root: Path):
    name = profile(root, job("own", time_limit="3h"), job("other"))
    assert [one.time_limit for one in limited(load_profile(name), "2min")] == [3 * 3600, 120]
    assert [one.time_limit for one in limited(load_profile(name), None)] == [3 * 3600, None]
    with pytest.raises(ValueError, match=r"^time_limit = soon: is not a time"):
        run_suite(name, time_limit="soon")
    with pytest.raises(ValueError, match=r"job 'a': time_limit = 5: is not a time"):
        load_profile(profile(root, job("a", time_limit=5), name="faulty"))


def test_a_limit_under_the_estimate_is_named(root: Path):
    jobs = load_profile(profile(root, job("own", time_limit="3h"), job("other")))
    estimates = {one: Estimate("done", None, 11 * 3600, 1, 0, 0) for one in ("own", "other")}
    assert over_their_limit(jobs, estimates) == ["job own: takes about 11 h, and its time limit is 3h; raise it"]


class Clock:
    """Time passes while the suite sleeps, ten seconds at once."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.now += 10


class HangingWorkers(FakeWorkers):
    """The job `hangs` has no exit code before it is killed, or before it is asked to end if it `obeys`."""

    def __init__(self, obeys: bool, queue: int = 0):
        super().__init__([], count=9)
        self.obeys, self.queue, self.asked, self.killed = obeys, queue, [], []

    def start(self, job, order, log, copy):
        handle = super().start(job, order, log, copy)
        if self.queue:
            Path(log).unlink()
        return handle | {"log": log}

    def end(self, handle):
        self.asked.append(schedule_module.time.now)

    def kill(self, handle):
        self.killed.append(schedule_module.time.now)

    def poll(self, handle):
        self.queue -= 1
        if self.queue == 0:
            Path(handle["log"]).touch()
        if handle["job"] == "hangs" and not (self.asked if self.obeys else self.killed):
            return None
        return -signal.SIGKILL if handle["job"] == "hangs" else 0


@pytest.mark.parametrize("obeys", [True, False])
def test_a_job_over_its_limit_fails_alone_and_a_rerun_continues(root: Path, monkeypatch, obeys: bool):
    monkeypatch.setattr(schedule_module, "time", Clock())
    name = profile(root, job("hangs", time_limit="1min"), job("needy", needs=["hangs"]), job("good"))
    workers = HangingWorkers(obeys)
    assert not Suite(name, load_profile(name)).run(workers)
    assert workers.asked == [1080]  # seen at 1010, so it is over 60 seconds at 1080
    assert workers.killed == ([] if obeys else [1110])  # 20 seconds after that
    jobs = state(root)
    assert {one: status["state"] for one, status in jobs.items()} == {
        "hangs": "failed",
        "needy": "blocked",
        "good": "done",
    }
    reason = "time_limit = 1min: the job took longer and was ended; raise it in the profile, or give --time-limit"
    assert jobs["hangs"]["error"] == reason
    assert jobs["needy"]["error"] == f"needs hangs, which failed: {reason}"
    assert Suite(name, load_profile(name)).run(FakeWorkers(again := []))
    assert again == ["hangs", "needy"]


def test_the_time_in_a_queue_does_not_count(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedule_module, "time", Clock())
    name = profile(root, job("hangs", time_limit="1min"))
    workers = HangingWorkers(obeys=True, queue=30)
    assert not Suite(name, load_profile(name)).run(workers)
    assert workers.asked == [1080 + 30 * 10]
    assert state(root)["hangs"]["seconds"] == 80


# --- real processes ---------------------------------------------------------------------------------------------------


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process that left its parents is lost")


@pytest.fixture(scope="module", params=["forked", "own process"])
def workers(request):
    workers = LocalWorkers(1)
    workers.forks = request.param == "forked"
    yield workers
    workers.stop([])


def start(workers: LocalWorkers, root: Path) -> tuple:
    """A hanging job: its handle and the process ids of the job, its kernel and what the notebook started."""
    write_notebook(root / "notebooks", "hangs", ["a = 1", HANGS])
    suite = Suite("tiny", load_profile(profile(root, job("hangs", "hangs"))))
    suite.earlier = {}
    suite._start(suite.jobs[0], workers)
    kernel, child = wait_for(root / "pid"), wait_for(root / "child")
    return suite.running["hangs"].handle, psutil.Process(kernel).ppid(), kernel, child


def exit_code(workers: LocalWorkers, handle: tuple) -> int:
    for _ in range(1200):
        if (code := workers.poll(handle)) is not None:
            return code
        time.sleep(0.05)
    raise TimeoutError


@on_linux
def test_the_kernel_and_all_that_it_started_end_with_the_job(workers: LocalWorkers, root: Path):
    handle, *processes = start(workers, root)
    assert workers.poll(handle) is None
    workers.end(handle)
    assert exit_code(workers, handle) == 130
    assert all(map(gone, processes))
    assert workers.free()


@on_linux
def test_a_job_that_does_not_answer_is_killed_with_all_that_it_started(workers: LocalWorkers, root: Path):
    handle, *processes = start(workers, root)
    os.kill(processes[0], signal.SIGSTOP)
    workers.end(handle)
    time.sleep(0.5)
    assert workers.poll(handle) is None
    workers.kill(handle)
    assert exit_code(workers, handle) == -signal.SIGKILL
    assert all(map(gone, processes))

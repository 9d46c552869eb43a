"""Jobs that are forks of the warm process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from suite_fixtures import gone, make_root, wait_for, write_notebook

from kdhelpers.suite import warm as warm_module
from kdhelpers.suite.copies import reason
from kdhelpers.suite.replay import end_marker
from kdhelpers.suite.warm_process import WarmProcess
from kdhelpers.suite.workers import job_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux only")
STATE = """
import os, sys, threading
import numpy, torch, kdhelpers
assert threading.current_thread() is threading.main_thread()
assert "torch._dynamo" in sys.modules, "not a fork"
assert not hasattr(kdhelpers, "left_by_another_job")
kdhelpers.left_by_another_job = True
assert torch.get_num_threads() == 1
numpy.ones((300, 300)) @ numpy.ones((300, 300))
torch.ones(300, 300, requires_grad=True).square().sum().backward()
open(os.environ["KD_ROOT"] + "/" + name, "w").write(os.environ["KD_EXECUTED"] + " " + os.environ["MPLBACKEND"])
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_root(tmp_path, monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_notebook(root / "notebooks", "state", ["name: str = 'one'", STATE])
    return root


@pytest.fixture
def warm(root: Path):
    process = WarmProcess(job_environment(""))
    yield process
    process.stop()


def start(warm: WarmProcess, root: Path, notebook: str, **parameters):
    name = parameters.get("name", notebook)
    order = {
        "notebook": str(root / "notebooks" / f"{notebook}.ipynb"),
        "copy": str(root / f"{name}.ipynb"),
        "parameters": parameters,
        "fingerprint": "f",
    }
    return warm.start(order, job_environment(f"executed/{name}"), str(root / f"{name}.log"))


def exit_code(job) -> int:
    deadline = time.monotonic() + 120
    while job.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return job.returncode


def threads_of(process: int) -> list[str]:
    """Names of the threads of a process, without the one of pyarrow's allocator, which is prepared for a fork."""
    names = [path.read_text().strip() for path in Path(f"/proc/{process}/task").glob("*/comm")]
    return [name for name in names if not name.startswith("jemalloc")]


def test_jobs_share_imports_and_no_state(root: Path, warm: WarmProcess):
    jobs = [start(warm, root, "state", name=name) for name in ("one", "two")]
    broken = start(warm, root, "raises")
    assert [exit_code(job) for job in (*jobs, broken)] == [0, 0, 1]
    assert end_marker(root / "one.ipynb") == "f"
    assert (root / "two").read_text() == "executed/two module://matplotlib_inline.backend_inline"
    assert "error: ValueError: rate = 0.1: too fast" in (root / "raises.log").read_text()
    assert len(threads_of(warm.process.pid)) == 1  # a fork copies one thread only


def test_the_end_of_the_warm_process_ends_its_jobs(root: Path, warm: WarmProcess):
    job = start(warm, root, "sleeps")
    kernel = wait_for(root / "pid")
    assert job.poll() is None
    os.kill(warm.process.pid, signal.SIGKILL)
    assert gone(kernel)
    assert exit_code(job) == -signal.SIGKILL


def test_a_job_that_cannot_be_forked_fails_alone_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The warm process goes on, and so do the jobs that it has started."""

    def fork(_work):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    told, jobs, files = [], {}, set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(warm_module, "fork", fork)
    monkeypatch.setattr(warm_module, "_tell", lambda *facts: told.append(facts))
    warm_module._start({"number": 3, "order": {}, "environment": {}, "log": str(tmp_path / "log")}, jobs)
    assert told == [(3, os.getpid(), 1)]
    assert jobs == {}
    assert set(os.listdir("/proc/self/fd")) == files
    remedy = "cannot start the job: Resource temporarily unavailable; end other programs, or lower --workers"
    assert reason(tmp_path / "log", 1) == remedy


def test_a_warm_process_that_died_with_an_unread_order_is_stopped(root: Path):
    warm = WarmProcess(job_environment(""))
    warm.process.kill()
    warm.process.wait()
    job = start(warm, root, "state")
    warm.stop()
    assert exit_code(job) == -signal.SIGKILL

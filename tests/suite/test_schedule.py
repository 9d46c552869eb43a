"""The order of jobs, capacity, the rule for a job that is done, and the workers, without kernels."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest
import torch
from suite_fixtures import FakeWorkers, job, make_root, profile, state

from kdhelpers import artifacts
from kdhelpers.suite import run_suite
from kdhelpers.suite import schedule as schedule_module
from kdhelpers.suite.copies import copies_of
from kdhelpers.suite.profiles import load_profile
from kdhelpers.suite.ray_workers import RayWorkers
from kdhelpers.suite.schedule import Suite
from kdhelpers.suite.terminal import Log
from kdhelpers.suite.workers import LocalWorkers, default_workers, job_environment, visible_gpus


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_root(tmp_path, monkeypatch)


def test_order_capacity_and_forced_training(root: Path):
    jobs = load_profile(
        profile(
            root,
            job("last", needs=["b", "c"]),
            job("b", needs=["a"]),
            job("c", needs=["a"]),
            job("a"),
            job("d", "raises"),
        )
    )
    started: list[str] = []
    workers = FakeWorkers(started)
    assert Suite("tiny", jobs, frozenset(["a", "d"])).run(workers)
    assert started == ["a", "d", "b", "c", "last"]
    assert workers.most == 2
    parameters = {name: order["parameters"] for name, order in workers.orders.items()}
    assert parameters["a"] == {"force_retrain": True}
    assert parameters["b"] == parameters["d"] == {}  # b is not forced, d has no such parameter


def test_a_job_after_others_waits_for_them_and_a_failure_does_not_block_it(root: Path):
    name = profile(root, job("bad", "raises"), job("needy", needs=["bad"]), job("good"), job("results", after=["*"]))
    started: list[str] = []
    suite = Suite("tiny", load_profile(name))
    assert not suite.run(FakeWorkers(started, failing=("bad",)))
    assert started == ["bad", "good", "results"]
    assert [suite.status[one].state for one in ("bad", "needy", "results")] == ["failed", "blocked", "done"]
    again: list[str] = []
    assert Suite("tiny", load_profile(name)).run(FakeWorkers(again))
    assert again == ["bad", "needy", "results"]  # the results are out of date when the failed job has succeeded
    assert Suite("tiny", load_profile(name)).run(FakeWorkers(third := []))
    assert third == []


def test_exit_code_zero_without_the_end_marker_is_a_failure(root: Path):
    jobs = load_profile(profile(root, job("a")))
    suite = Suite("tiny", jobs)
    assert not suite.run(FakeWorkers([], marked=False))
    assert suite.status["a"].state == "failed"
    assert "no end marker" in suite.status["a"].error


def test_a_failure_keeps_the_last_good_copy(root: Path):
    jobs = load_profile(profile(root, job("a")))
    Suite("tiny", jobs).run(FakeWorkers([]))
    good = (root / "notebooks/executed/a.ipynb").read_bytes()
    suite = Suite("tiny", jobs, frozenset(["a"]))
    suite.run(FakeWorkers([], exit_code=-9, marked=False))
    assert (root / "notebooks/executed/a.ipynb").read_bytes() == good
    assert (root / "notebooks/executed/a.failed.ipynb").is_file()
    assert "killed by signal 9" in suite.status["a"].error


def test_two_suites_at_once_are_refused(root: Path):
    jobs = load_profile(profile(root, job("a")))

    class Nested(FakeWorkers):
        def start(self, *arguments):
            with pytest.raises(BlockingIOError, match="another suite runs in"):
                Suite("tiny", jobs).run(FakeWorkers([]))
            return super().start(*arguments)

    assert Suite("tiny", jobs).run(Nested([]))


def test_a_full_disk_stops_the_running_jobs(root: Path):
    jobs = load_profile(profile(root, job("a"), job("b")))

    class Full(FakeWorkers):
        def poll(self, handle):
            raise OSError("no space left")

    workers = Full([])
    suite = Suite("tiny", jobs)
    with pytest.raises(OSError, match="no space left"):
        suite.run(workers)
    assert len(workers.stopped) == 2
    assert suite.status["a"].state == "interrupted"


def test_each_unchanged_job_is_looked_at_once(root: Path, monkeypatch: pytest.MonkeyPatch):
    """Each job is after all above it: there are two to the power of 9 paths from the last one."""
    jobs = load_profile(profile(root, *[job(f"job{n}", after=["*"] if n else []) for n in range(10)]))
    assert Suite("tiny", jobs).run(FakeWorkers([]))
    read, looked = schedule_module.end_marker, []
    monkeypatch.setattr(schedule_module, "end_marker", lambda copy: looked.append(copy) or read(copy))
    assert Suite("tiny", jobs).run(FakeWorkers(again := []))
    assert again == []
    assert len(looked) == 10


def test_a_record_without_a_run_is_of_no_job(root: Path):
    jobs = load_profile(profile(root, job("a")))
    record = {"schema": 1, "name": "x", "identity": "0", "status": "finished", "notebook": copies_of(jobs[0]).link}
    artifacts.save_json(artifacts.record_path("x"), record)
    assert Suite("tiny", jobs, changed=Log(jobs).changed).run(FakeWorkers([]))
    assert state(root)["a"]["records"] == []


# --- workers ----------------------------------------------------------------------------------------------------------


def test_workers_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kdhelpers.suite.workers.cores", lambda: 8)
    monkeypatch.setattr("kdhelpers.suite.workers.visible_gpus", lambda: ["0", "3"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environments = []
    monkeypatch.setattr(
        "kdhelpers.suite.workers.replay_process", lambda _, environment, *rest: environments.append(environment)
    )
    workers = LocalWorkers(4)
    for _ in range(4):
        workers.start(None, {}, "", "")
    assert not workers.free()
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == ["0", "3", "0", "3"]
    assert {environment["OMP_NUM_THREADS"] for environment in environments} == {"2"}
    assert default_workers(gpus=2) == 2
    assert 1 <= default_workers(gpus=0) <= 8


@pytest.mark.parametrize(
    ("device", "chosen", "gpus"),
    [
        ("cuda:0", "", ["0", "1"]),
        ("cuda:0", "2,GPU-5", ["2", "GPU-5"]),
        ("cpu", "", []),  # GPUs for which torch has no kernels
        ("cpu", "-1", []),  # hides all GPUs
    ],
)
def test_gpus_count_if_a_training_takes_them(monkeypatch: pytest.MonkeyPatch, device, chosen, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("kdhelpers.device.pick_device", lambda: torch.device(device))
    assert visible_gpus() == gpus


def test_the_job_finds_this_interpreters_kernel_first(root: Path):
    from jupyter_client.kernelspec import KernelSpecManager

    environment = job_environment("notebooks/executed/a.ipynb")
    home = Path(environment["JUPYTER_PATH"].split(os.pathsep)[0])
    spec = KernelSpecManager(kernel_dirs=[str(home / "kernels")], ensure_native_kernel=False).get_kernel_spec("python3")
    assert spec.argv[0] == "python"  # which jupyter_client replaces with its own interpreter
    assert environment["KD_EXECUTED"] == "notebooks/executed/a.ipynb"


def test_missing_ray_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="--ray needs Ray, which is not installed: pip install"):
        RayWorkers("local")


def test_ray_runs_the_same_jobs(root: Path, monkeypatch: pytest.MonkeyPatch):
    """A stand-in for Ray's five calls; the job's own process is real."""
    reserved = []

    def remote(**options):
        reserved.append(options)
        return lambda function: types.SimpleNamespace(remote=function)

    fake = types.SimpleNamespace(
        init=lambda **_: None,
        is_initialized=lambda: False,
        cluster_resources=lambda: {"CPU": 2.0, "GPU": 1.0},
        remote=remote,
        wait=lambda handles, timeout: (handles, []),
        get=lambda handle: handle,
        cancel=None,
        exceptions=types.SimpleNamespace(RayError=RuntimeError),
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    with pytest.raises(ConnectionError, match="--ray 127.0.0.1:1: no Ray cluster answers there"):
        RayWorkers("127.0.0.1:1")
    name = profile(root, job("raises", "raises", num_gpus=0.5))
    assert not run_suite(name, ray="auto")
    assert state(root)["raises"]["error"] == "ValueError: rate = 0.1: too fast"
    assert [options["num_gpus"] for options in reserved] == [0.5]


def test_the_command_that_records_quote_is_papermills_own():
    from kdhelpers.suite.replay import command

    quoted = command("anywhere/notebooks/02_independent_student.ipynb", {"epochs": 3, "augmentation": "crop flip"})
    assert quoted == (
        "papermill -k python3 --cwd notebooks notebooks/02_independent_student.ipynb out.ipynb"
        " -p epochs 3 -p augmentation 'crop flip'"
    )

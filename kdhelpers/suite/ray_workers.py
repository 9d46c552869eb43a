"""The workers of a Ray cluster: each job is a Ray task, which starts the same child process as `LocalWorkers` do."""

import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kdhelpers.artifacts import write_atomic
from kdhelpers.suite.profiles import PACKAGE, Job
from kdhelpers.suite.warm_process import STOP_SECONDS, end_process
from kdhelpers.suite.workers import REPLAY, job_environment, prepend, replay_process

RETRIES = 2  # of a job whose machine is lost
POLL_SECONDS = 0.2
SLOW_START = "--ray local: Ray did not start in its time on this busy machine; try again later, or leave --ray out"


class RayWorkers:
    """Ray tasks, here or on a cluster that shares the artifacts' root; Ray decides how many run at once.

    Raises ValueError if Ray is not installed, ConnectionError if no cluster answers.
    """

    def __init__(self, address: str, count: int | None = None, module: str = REPLAY):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
        try:
            import ray
        except ImportError as error:
            raise ValueError("--ray needs Ray, which is not installed: pip install -r requirements-ray.txt") from error
        self.ray, self.count, self.running, self.module = ray, count, 0, module
        self._connect(address)
        resources = ray.cluster_resources()
        self.gpus = 1 if resources.get("GPU") else 0
        self.at_once = count or max(1, int(resources.get("GPU") or resources.get("CPU", 1)))
        self.description = f"Ray at {address}, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"

    def _connect(self, address: str) -> None:
        own = {"include_dashboard": False} if address == "local" else {}
        variables = {"PYTHONPATH": prepend("PYTHONPATH", PACKAGE.parent)}
        try:
            _check_address(address)
            self.ray.init(
                address=address,
                ignore_reinit_error=True,
                log_to_driver=False,
                logging_level="warning",
                runtime_env={"env_vars": variables},
                **own,
            )
        except OSError as error:  # includes ConnectionError
            raise ConnectionError(
                f"--ray {address}: no Ray cluster answers there; start one with `ray start --head`, or use --ray local"
            ) from error
        except Exception as error:  # Ray raises a bare Exception
            if "timed out during startup" not in str(error):
                raise
            raise ConnectionError(SLOW_START) from error

    def free(self) -> bool:
        return self.count is None or self.running < self.count

    def start(self, job: Job, order: dict, log: str, copy: str) -> Any:
        self.running += 1
        num_gpus = self.gpus if job.num_gpus is None else job.num_gpus
        task = self.ray.remote(num_gpus=num_gpus, max_retries=RETRIES)(_run_in_task)
        return task.remote(order, job_environment(copy), log, self.module)

    def poll(self, handle: Any) -> int | None:
        if not self.ray.wait([handle], timeout=0)[0]:
            return None
        self.running -= 1
        try:
            return self.ray.get(handle)
        except self.ray.exceptions.RayError as error:
            print(f"ray: {' '.join(str(error).split())[:300]}", file=sys.stderr)
            return 1

    def end(self, handle: Any) -> None:
        self.ray.cancel(handle)

    def kill(self, handle: Any) -> None:
        """Its task does this, see `_run`."""

    def stop(self, handles: list) -> None:
        """End the tasks, and wait for them: each ends its job."""
        for handle in handles:
            self.end(handle)
        if handles:
            self.ray.wait(handles, num_returns=len(handles), timeout=2 * STOP_SECONDS)


def _check_address(address: str) -> None:
    """Raise OSError at once if nothing listens at host:port; Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _run_in_task(order: dict, environment: dict[str, str], log: str, module: str) -> int:
    """The job's exit code. Its copy is written on this machine and moved into the shared root when the job has ended.

    A machine that Ray has lost may still run the job that Ray starts again elsewhere. So each has a copy of its own.
    """
    if "copy" not in order:
        return _run(order, environment, log, module)
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / Path(order["copy"]).name
        try:
            return _run(order | {"copy": str(own)}, environment, log, module)
        finally:  # after `stop` too
            if own.is_file():
                write_atomic(Path(order["copy"]), own.read_bytes())


def _run(order: dict, environment: dict[str, str], log: str, module: str) -> int:
    process = replay_process(order, environment, log, module)
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)  # `ray.cancel` interrupts this, but not `process.wait`
    finally:
        process.end()
        end_process(process)
    return process.returncode

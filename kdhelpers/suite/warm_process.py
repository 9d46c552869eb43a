"""The suite's side of the warm process."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

from kdhelpers.suite.processes import end_family

STOP_SECONDS = 20  # a child closes its kernel within that time, see replay.py


class ForkedJob:
    """A job that the warm process forks; the part of `OwnProcess` that `LocalWorkers` needs."""

    def __init__(self, warm: "WarmProcess"):
        self.warm, self.returncode = warm, None
        self.pid = warm.process.pid  # until it is forked

    def poll(self) -> int | None:
        self.warm.read_lines()
        return self.returncode

    def end(self) -> None:
        if self.poll() is None and self.pid != self.warm.process.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)


class WarmProcess:
    """Starts jobs as forks of one process that has imported torch, pandas and papermill; see warm.py."""

    def __init__(self, environment: dict[str, str]):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kdhelpers.suite.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | environment,
            start_new_session=True,  # as in `replay_process`
        )
        os.set_blocking(self.process.stdout.fileno(), False)
        self.jobs: list[ForkedJob] = []
        self.unread = b""

    def start(self, order: dict, environment: dict[str, str], log: str) -> ForkedJob:
        message = {"number": len(self.jobs), "order": order, "environment": environment, "log": log}
        with suppress(BrokenPipeError):  # it died; `poll` returns its exit code
            self.process.stdin.write(json.dumps(message, default=str).encode() + b"\n")
            self.process.stdin.flush()
        self.jobs.append(ForkedJob(self))
        return self.jobs[-1]

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def read_lines(self) -> None:
        *lines, self.unread = (self.unread + (self.process.stdout.read() or b"")).split(b"\n")
        for number, process, code in map(json.loads, lines):
            self.jobs[number].pid, self.jobs[number].returncode = process, code
        if self.has_ended() and not lines:  # killed: its jobs end with it
            for job in self.jobs:
                job.returncode = job.returncode if job.returncode is not None else self.process.returncode or 1

    def stop(self) -> None:
        """End the jobs and the process."""
        with suppress(BrokenPipeError):  # it died with an order that it has not read
            self.process.stdin.close()
        end_process(self.process)


def end_process(process: subprocess.Popen) -> None:
    """Wait for a process whose stdin is closed; kill it if it does not end in time."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        end_family(process.pid)
        process.wait()

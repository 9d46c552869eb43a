"""The suite as users start it, with papermill, kernels and its warm process: killed, and started again at once.

A kill hits the suite alone, or one of its kernels or jobs. What runs on ends itself when its suite is gone; the next
suite starts meanwhile.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.kills import processes, stored
from benchmarks.kills.cases import write_suite
from benchmarks.kills.harness import Tally
from kdhelpers.suite import run_suite, warm, workers
from kdhelpers.suite.forked import fork
from kdhelpers.suite.warm_process import WarmProcess

EPOCHS = 3
LEFT_OUT = ("notebooks/", "pth_models/checkpoints/")  # copies have times in their cells


class Process:
    """The part of `subprocess.Popen` that the suite needs, of a fork that has imported what its jobs import."""

    def __init__(self, environment: dict[str, str]):
        orders, self._orders = os.pipe()
        self._codes, codes = os.pipe()
        self.pid = fork(lambda: self._be_warm(orders, codes, environment))
        os.close(orders)
        os.close(codes)
        self.stdin, self.stdout = os.fdopen(self._orders, "wb"), os.fdopen(self._codes, "rb", buffering=0)
        self.returncode: int | None = None

    def _be_warm(self, orders: int, codes: int, environment: dict[str, str]) -> None:
        os.dup2(orders, 0)
        os.dup2(codes, 1)
        os.closerange(3, 256)
        os.environ.update(environment)
        warm.main()

    def poll(self) -> int | None:
        if self.returncode is None:
            process, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if process else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        while self.poll() is None:
            time.sleep(0.02)
        return self.returncode


class Warm(WarmProcess):
    """It starts at once."""

    def __init__(self, environment: dict[str, str]):
        self.process, self.jobs, self.unread = Process(environment), [], b""
        os.set_blocking(self.process.stdout.fileno(), False)


def suite() -> None:
    workers.WarmProcess = Warm
    workers.visible_gpus = list
    if not run_suite("few", workers=2):
        raise ValueError("a job has failed")


def kill_suites(template: Path, kills: int, draw: random.Random, note: Callable[[str], None]) -> Tally:
    """Each kill in a start of the suite; after every few kills the suite ends, and its end is compared."""
    tally = Tally()
    processes.run(lambda: write_suite(EPOCHS), template)
    with processes.copy_of(template) as root:
        whole = processes.run(suite, root)
    while tally.kills < kills:
        with processes.copy_of(template) as root:
            for _ in range(min(3, kills - tally.kills)):
                _kill_one(root, whole.seconds, tally, draw, note)
            ended = processes.run(suite, root)
        place = f"after {tally.kills} kills"
        wrong = [line for line in ended.output.splitlines() if ": failed " in line]  # with its reason
        wrong += stored.differences(_kept(whole.bits), _kept(ended.bits)) if not ended.code else [ended.error]
        tally.faults += [f"{place}: {text}" for text in [*ended.before, *(ended.after or []), *wrong]]
    return tally


def _kill_one(root: Path, longest: float, tally: Tally, draw: random.Random, note: Callable[[str], None]) -> None:
    child, moment = processes.start(suite, root), draw.uniform(0, longest)
    child.wait_until_it_works()
    time.sleep(moment)
    family = [psutil.Process(child.pid)]
    family += family[0].children(recursive=True) if draw.random() < 0.5 else []
    victim = draw.choice(family)
    what = "the suite" if victim.pid == child.pid else "a process of a job"
    victim.send_signal(signal.SIGKILL)
    ended = child.wait()
    tally.kills += 1
    tally.faults += [f"before a kill: {fault}" for fault in ended.before]
    note(f"suite with kernels: killed {what} after {moment:.2f} s")


def _kept(bits: dict[str, str]) -> dict[str, str]:
    return {path: value for path, value in bits.items() if not path.startswith(LEFT_OUT)}

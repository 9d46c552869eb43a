"""SIGKILL at each step of a job that writes, and at random moments: does its restart end with the very same bits?

Jobs of a few seconds (`cases`) run in forks of this process. `trap` counts the steps at which their files change, and
kills there: first at each step in turn, each time in a root of its own, then at random moments, on one root until the
job ends. Every start reads all files back before and after (`stored`), and the last one must leave the files of a job
that was never killed, without its times. `suites` kills the suite with its kernels, `pairs` starts a job twice at once.
`benchmarks.disks` fails the disk and the clock in place of the kill.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # noqa: F401  as everything that a child would import again

from benchmarks.kills import pairs
from benchmarks.kills.cases import Case, cases, served_files, write_images
from benchmarks.kills.harness import Tally, kill_at, kill_at_random, prepared
from benchmarks.kills.server import serving
from benchmarks.kills.suites import kill_suites
from benchmarks.measure import note, row
from kdhelpers.suite import warm

SEED = 2026  # of the random moments
RANDOM_KILLS = 5  # per case
SUITE_KILLS = 12
AT_ONCE = 6  # tasks: most of their time they wait for children
PAIRS = {  # key of a case -> what two of it at once must do
    "training": {
        "at once": lambda ready: pairs.trainings(ready, killed=False),
        "at once, the first killed": lambda ready: pairs.trainings(ready, killed=True),
    },
    "suite": {"at once": pairs.suites},
    "data set": {"at once": pairs.both},
    "gallery": {"at once": pairs.both},
}


@contextmanager
def all_cases() -> Iterator[list[Case]]:
    """With their images and their server."""
    before, files = dict(os.environ), served_files()
    with tempfile.TemporaryDirectory(prefix="kills-") as data, serving(files) as url:
        write_images(Path(data))
        os.environ["KD_DATA"] = data
        try:
            yield cases(url, files)
        finally:
            os.environ.clear()
            os.environ.update(before)


def run(threads: int = 1) -> list[dict]:
    """Three kinds of rows: kills of each case, kills of suites with kernels, two processes at once."""
    torch.set_num_threads(threads)
    warm._import()
    note(f"seed of the random moments: {SEED}, and the case")
    with all_cases() as every:
        tasks = {
            case: [partial(_kill_steps, case, part) for part in range(case.parts)] + [partial(_kill_randomly, case)]
            for case in every
        }
        twice = [(case, what) for case in every for what in PAIRS.get(case.key, {})]
        done = iter(in_processes([*sum(tasks.values(), []), *(partial(_start_twice, *one) for one in twice), _suites]))
        rows = [_row(case, [next(done) for _ in tasks[case]]) for case in every]
        pairs_rows = [result(f"two {what}: {case.name}", next(done).faults) for case, what in twice]
    suites = next(done)
    return [*rows, result(f"suite with kernels: {suites.kills} at random", suites.faults), *pairs_rows]


def _kill_steps(case: Case, part: int) -> Tally:
    with prepared(case) as ready:
        return kill_at(ready, range(1 + part * case.every, ready.steps + 1, case.every * case.parts))


def _kill_randomly(case: Case) -> Tally:
    with prepared(case) as ready:
        return kill_at_random(ready, RANDOM_KILLS, random.Random(f"{SEED} {case.key}"), note)


def _start_twice(case: Case, what: str) -> Tally:
    with prepared(case) as ready:
        return Tally(faults=PAIRS[case.key][what](ready))


def _suites() -> Tally:
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        (template := Path(folder) / "template").mkdir()
        return kill_suites(template, SUITE_KILLS, random.Random(SEED), note)


def _row(case: Case, tallies: list[Tally]) -> dict:
    """Of the parts at steps, and of the random kills, which come last."""
    aimed, at_random = sum(tally.kills for tally in tallies[:-1]), tallies[-1].kills
    taken = "each step" if case.every == 1 else f"one in {case.every} steps"
    faults = [fault for tally in tallies for fault in tally.faults]
    text = f"{case.name}: {aimed} at {taken}, {at_random} at random"
    return result(text, faults, sum(tally.inside for tally in tallies))


def in_processes(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of all tasks, in their order. Each process is a fork that has no thread."""
    _tasks[:] = tasks
    with multiprocessing.get_context("fork").Pool(AT_ONCE) as pool:
        return pool.map(_run_task, range(len(tasks)), chunksize=1)


_tasks: list[Callable[[], Any]] = []  # a fork needs no pickle


def _run_task(number: int) -> Any:
    return _tasks[number]()


def result(text: str, faults: list[str], inside: int | None = None) -> dict:
    """A row; `inside`: how many of the kills were within a write."""
    for fault in faults:
        note(f"{text}: {fault}")
    text += "" if inside is None else f"; {inside} of them within a write"
    return row(text, len(faults), "faults", None, "0", not faults)

"""Kill a case at each of its steps in turn, or at random moments; restart it; compare how it ends."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.kills import stored
from benchmarks.kills.cases import Case
from benchmarks.kills.processes import Ended, copy_of, run, start
from benchmarks.kills.trap import SLOW_SECONDS, kill, slow

HOURS = 7200


@dataclass
class Tally:
    """Of one case: kills, those within a write, and what went wrong."""

    kills: int = 0
    inside: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, ended: Ended) -> Ended:
        self.kills += ended.killed
        self.inside += ended.killed and ended.inside
        return ended


@dataclass(frozen=True)
class Prepared:
    """A case with its root before it, the bits of its root after it, and what it takes without a kill."""

    case: Case
    template: Path
    bits: dict[str, str]
    steps: int
    seconds: float

    def faults_of(self, ended: Ended, place: str) -> list[str]:
        """What is wrong with a restart: what it found before, how it ended, what differs after."""
        if ended.code:
            wrong = [f"the restart fails: {ended.error}"]
        else:
            different = stored.differences(self.bits, ended.bits)
            wrong = [f"after the restart: {text}" for text in [*ended.after, *different]]
        return [f"{place}: {text}" for text in [*ended.before, *wrong]]


@contextmanager
def prepared(case: Case) -> Iterator[Prepared]:
    with TemporaryDirectory(prefix="kills-") as folder:
        template = Path(folder) / "template"
        template.mkdir()
        demand(run(case.prepare, template))
        with copy_of(template) as root:
            ended = demand(run(case.work, root))
        yield Prepared(case, template, ended.bits, ended.steps, ended.seconds)


def demand(ended: Ended) -> Ended:
    if ended.code or ended.after:
        raise AssertionError(f"without a kill: exit code {ended.code}, {ended.error or ended.after}")
    return ended


def kill_at(ready: Prepared, steps: Iterable[int]) -> Tally:
    """Kill a start of the case at each of the steps, each time in a root of its own; restart it."""
    tally = Tally()
    for step in steps:
        with copy_of(ready.template) as root:
            tally.add(run(ready.case.work, root, first=step, action=kill))
            tally.faults += ready.faults_of(restarted(ready, root), f"killed at step {step}")
    return tally


def kill_at_random(ready: Prepared, kills: int, draw: random.Random, note: Callable[[str], None]) -> Tally:
    """Kill starts of the case at random moments, on one root until it ends; each step lasts 2 ms longer."""
    tally = Tally()
    longest = ready.seconds + ready.steps * SLOW_SECONDS
    while tally.kills < kills:
        with copy_of(ready.template) as root:
            moments, ended = [], None
            while tally.kills < kills and (ended is None or ended.killed):
                moment = round(draw.uniform(0, longest), 3)
                age_temporary_files(root)
                ended = tally.add(start(ready.case.work, root, first=1, action=slow).kill_after(moment))
                if ended.killed:
                    moments.append(moment)
                    tally.faults += [f"before the kill after {moment} s: {fault}" for fault in ended.before]
            ended = restarted(ready, root) if ended.killed else ended
        tally.faults += ready.faults_of(ended, f"killed after {moments} s")
        note(f"{ready.case.name}: killed after {', '.join(map(str, moments)) or 'no'} s")
    return tally


def restarted(ready: Prepared, root: Path) -> Ended:
    age_temporary_files(root)
    return run(ready.case.work, root)


def age_temporary_files(root: Path) -> None:
    """As if the restart came two hours later: a temporary file of the last hour may still be written."""
    for path in root.rglob("*.tmp"):
        os.utime(path, (time.time() - HOURS, time.time() - HOURS))

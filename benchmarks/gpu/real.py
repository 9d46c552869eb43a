"""`real`: published runs, trained until a deadline; what is trained follows from measured times."""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Iterator, Sequence

from benchmarks.gpu.concurrency import concurrency, predict
from benchmarks.gpu.finish import finish
from benchmarks.gpu.plans import LARGE_PAIR, PLANS, SMALL_PAIR, Plan, Recipe
from benchmarks.gpu.session import Section, Session
from benchmarks.measure import note, row
from kdhelpers import artifacts, fit_sweep, load_data
from kdhelpers.data import Data
from kdhelpers.display.progress import TimedProgress, duration

LINES_EVERY = 10  # epochs
PREPARE, CHOOSE, FINISH = 25, 5, 25  # seconds


class OutOfTime(KeyboardInterrupt):
    """The deadline came. An interruption: the run keeps its checkpoint and is not tested."""


class UntilDeadline(TimedProgress):
    """A line per ten epochs with the projected end; raises OutOfTime at the deadline."""

    def __init__(self, ends: float):
        self.ends = ends

    def step(self, step: int) -> None:
        self.count = self.done * self.steps + step
        self._check()

    def epoch(self, history: list[dict]) -> None:
        super().epoch(history)
        if self.done % LINES_EVERY == 0:
            left = duration(self.eta_seconds() or 0)
            note(
                f"  {self.name}: epoch {self.done}/{self.epochs}, {left} to train, {self.ends - time.monotonic():.0f} s"
            )
        self._check()

    def _check(self) -> None:
        if time.monotonic() > self.ends:
            raise OutOfTime(f"{self.name}: the deadline came in epoch {self.done + 1} of {self.epochs}")


class Real:
    """The sections of `real`, which share the unpacking process, the recipe and the data."""

    def __init__(self, session: Session, arguments: argparse.Namespace):
        self.session = session
        pair = SMALL_PAIR if session.small else LARGE_PAIR
        self.recipe = Recipe(arguments.dataset, arguments.epochs, session.precision, *pair)
        unpacked = session.results.get("data", {}).get("status") == "finished"
        wanted = arguments.unpack and not unpacked
        self.unpacking = subprocess.Popen(arguments.unpack, shell=True) if wanted else None
        self._data: Data | None = None

    def sections(self) -> Sequence[Section]:
        run = max(self.session.seconds - FINISH, 1)
        return (
            Section("concurrency", PREPARE, lambda session: concurrency(session, self.recipe)),
            Section("data", CHOOSE / 2, self.load, needed=True),
            Section("choose", CHOOSE / 2, self.choose, needed=True),
            Section("run", run, self.run),
            Section("finish", FINISH, lambda session: finish(session, self.data, self.recipe), repeated=True),
        )

    def load(self, session: Session) -> Iterator[dict]:
        """Wait for the unpacking, then read the images."""
        start = time.monotonic()
        if self.unpacking and (code := self.unpacking.wait()):
            raise RuntimeError(f"--unpack: exited with {code}")
        yield row("waited for the unpacking", time.monotonic() - start, "s")
        data = self.data
        yield row("training images", len(data.train), "images") | {"note": f"{data.name} from {artifacts.data_root()}"}

    @property
    def data(self) -> Data:
        if self._data is None:
            self._data = load_data(self.recipe.dataset, val_fraction=0)
        return self._data

    def choose(self, session: Session) -> Iterator[dict]:
        """The first plan that fits the time of `run`; without a measured one the smallest."""
        found = list(predict(session, self.recipe, len(self.data.train)))
        yield from found
        seconds = session.started + session.seconds - FINISH - time.monotonic()
        fitting = [line["case"] for line in found if line["value"] <= seconds]
        chosen = fitting[0] if fitting else PLANS[-1].name
        yield row(f"chosen: {chosen}", seconds, "s left") | {"plan": chosen}

    @property
    def plan(self) -> Plan:
        lines = self.session.results["choose"]["rows"]
        chosen = next(line["plan"] for line in lines if "plan" in line)
        return next(plan for plan in PLANS if plan.name == chosen)

    def run(self, session: Session) -> Iterator[dict]:
        """The phases, one after the other; a second call continues what the deadline interrupted."""
        for number, runs in enumerate(self.recipe.phases(self.plan), 1):
            names, start = ", ".join(run.artifact_name for run in runs), time.monotonic()
            try:
                trained = fit_sweep(runs, self.data, device=session.device, progress=UntilDeadline(session.ends))
            except OutOfTime as reached:
                session.ends = time.monotonic()  # the section counts as out of time, so a second call continues it
                yield row(f"phase {number}", session.ends - start, "s") | {"note": f"interrupted: {reached}"}
                return
            yield row(f"phase {number}", time.monotonic() - start, "s") | {"note": names}
            for each in trained:
                yield row(each.name, each.metrics["test_top1_pct"], "% test top-1")

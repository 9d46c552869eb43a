"""A rehearsal: every job of a profile with its networks and settings, for a few steps, in a root that is removed.

The notebooks run as they are; the package shortens trainings and predictions (`artifacts.rehearsal`). From the time of
a step follows an estimate of the time that each job takes on this machine.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from kdhelpers import artifacts
from kdhelpers.suite.copies import records_of
from kdhelpers.suite.profiles import Job, fingerprints, in_order, with_needs
from kdhelpers.suite.schedule import ENDED, Status, Suite, Workers
from kdhelpers.suite.stand_ins import place_weights

PREFIX, LOCK = "kdhelpers-rehearsal-", "rehearsal.lock"  # of the folder, and the file in it that a rehearsal holds


@dataclass(frozen=True)
class Estimate:
    """Of one job, from its rehearsal: its own time, and the time of its whole trainings."""

    state: str
    error: str | None
    seconds: float
    trainings: int
    memory_mib: float  # the most that one of them takes
    weights_bytes: int
    cache_bytes: int = 0  # of teachers' outputs, which jobs share: those that it computed first
    fingerprint: str | None = None  # of the job's sources and parameters


def _estimate(job: Job, status: Status, fingerprint: str, cache_bytes: int) -> Estimate:
    trained = [record for record in records_of(job) if "rehearsal" in record]
    rehearsed = sum(record["rehearsal"]["seconds"] for record in trained)
    seconds = max((status.seconds or 0) - rehearsed, 0) + sum(map(_whole_seconds, trained))
    memory = max((record["metrics"].get("peak_memory_mib", 0) for record in trained), default=0)
    files = (path for record in trained for path in artifacts.folder("weights").glob(f"{record['name']}.*"))
    return Estimate(
        status.state,
        status.error,
        round(seconds, 1),
        len(trained),
        round(memory),
        sum(path.stat().st_size for path in files),
        cache_bytes,
        fingerprint,
    )


def _whole_seconds(record: dict) -> float:
    """A record of a rehearsal has the time of whole epochs and of the whole test."""
    return record["run"]["epochs"] * record["metrics"].get("seconds_per_epoch", 0) + record["rehearsal"]["test_seconds"]


@dataclass(frozen=True)
class Plan:
    """What all jobs of a suite take, with the seeds that it is for."""

    seconds: float
    trainings: int
    memory_mib: float
    bytes: int
    unknown: int  # jobs without an estimate


def plan(jobs: Sequence[Job], estimates: dict[str, Estimate], workers: int) -> Plan:
    """At best all workers are busy to the end; at least the longest chain of jobs takes its time.

    Jobs that did not work are left out: what they took until then says nothing.
    """
    known = [(job, estimates[job.entry]) for job in jobs if job.entry in estimates]
    unknown = len(jobs) - len(known)
    known = [(job, one) for job, one in known if one.state == "done"]
    takes = {job.name: one.seconds * job.seeds for job, one in known}
    ends: dict[str, float] = {}
    for job in in_order(jobs):
        ends[job.name] = takes.get(job.name, 0) + max((ends.get(other, 0) for other in job.earlier), default=0)
    return Plan(
        max(sum(takes.values()) / workers, *ends.values()),
        sum(one.trainings * job.seeds for job, one in known),
        max((one.memory_mib for _, one in known), default=0),
        sum(one.weights_bytes * job.seeds + one.cache_bytes for job, one in known),
        unknown,
    )


def estimate_path(profile: str) -> Path:
    return artifacts.folder("executed") / f"{profile}.rehearsal.json"


def stored_estimates(profile: str) -> dict[str, Estimate]:
    """{entry of the profile: estimate} of the last rehearsal; {} if there was none."""
    with suppress(OSError, ValueError):
        return TypeAdapter(dict[str, Estimate]).validate_python(artifacts.load_json(estimate_path(profile)))
    return {}


@contextmanager
def scratch_root() -> Iterator[None]:
    """Within it artifacts go to a folder that is removed, after SIGTERM too, and trainings are rehearsed."""
    data, root = artifacts.data_root(), artifacts.root()
    before = dict(os.environ)
    _remove_left_behind()
    with (
        tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as scratch,
        artifacts.lock(Path(scratch) / LOCK),  # the system frees it when this process ends
        _exit_at_sigterm(),
    ):
        os.environ |= {"KD_ROOT": scratch, "KD_DATA": str(data), "KD_REHEARSAL": str(root)}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _remove_left_behind() -> None:
    """The folders of rehearsals that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not (folder / LOCK).is_file():  # of a rehearsal that has just made it, and will lock it at once
            continue
        with suppress(OSError), artifacts.lock(folder / LOCK, wait=False):  # of one that runs, or of another user
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _exit_at_sigterm() -> Iterator[None]:
    """SIGTERM ends this process as an exception does, which removes the folder; at once it would remain."""

    def leave(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the removal
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # which alone may set it
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def rehearse(
    profile: str, jobs: Sequence[Job], workers: Workers, changed: Callable[[Job, Status], None]
) -> dict[str, Estimate]:
    """{entry: estimate} of the jobs, each kept as it ends. Jobs that worked already, unchanged, are left out.

    So the same command continues an interrupted rehearsal, and rehearses jobs again that failed.
    """
    path, kept, hashes = estimate_path(profile), stored_estimates(profile), fingerprints(jobs)
    works = {(name, one.fingerprint) for name, one in kept.items() if one.state == "done"}
    again = with_needs(jobs, [job.name for job in jobs if (job.entry, hashes[job.name]) not in works])
    caches = 0

    def ended(job: Job, status: Status) -> None:
        nonlocal caches
        changed(job, status)
        if status.state in ENDED:
            before, caches = caches, _cache_bytes()
            kept[job.entry] = _estimate(job, status, hashes[job.name], caches - before)
            artifacts.save_json(path, {name: asdict(one) for name, one in kept.items()})

    with scratch_root():
        place_weights(again)
        Suite(profile, again, frozenset(), ended).run(workers)
    return {job.entry: kept[job.entry] for job in jobs}


def _cache_bytes() -> int:
    """What the caches of teachers take after all epochs: of crop and flip, which give an image 162 views."""
    trained = [record for record in artifacts.records() if "rehearsal" in record]
    views = max((record["data"]["train"] * min(record["run"]["epochs"], 162) for record in trained), default=0)
    sizes = 0
    for keys in artifacts.folder("outputs").glob("*.keys"):
        rows = keys.stat().st_size // 16  # two int64 a row
        sizes += (keys.stat().st_size + keys.with_suffix(".rows").stat().st_size) // max(rows, 1) * views
    return sizes

"""The schedule: the order of the jobs, the rule for a job that is done, and the state that a suite continues from."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from pydantic import TypeAdapter

from kdhelpers.artifacts import delete, folder, load_json, lock, record_path, rename, save_json
from kdhelpers.suite.copies import copies_of, is_stored, reason, records_of
from kdhelpers.suite.profiles import Job, fingerprints
from kdhelpers.suite.replay import end_marker
from kdhelpers.suite.times import limit_text
from kdhelpers.suite.warm_process import STOP_SECONDS

SCHEMA = 1
FINISHED = ("done", "unchanged")
ENDED = (*FINISHED, "failed", "blocked")
POLL_SECONDS = 0.1


@dataclass
class Status:
    """The state of a job: waiting, running, done, unchanged (done before, kept), failed, blocked or interrupted."""

    state: str = "waiting"
    seconds: float | None = None
    exit_code: int | None = None
    fingerprint: str | None = None
    error: str | None = None
    records: list[str] = field(default_factory=list)  # names of its notebook's result records


STATES = TypeAdapter(dict[str, Status])


class Workers(Protocol):
    description: str
    at_once: int  # jobs

    def free(self) -> bool: ...
    def start(self, job: Job, order: dict, log: str, copy: str) -> Any: ...
    def poll(self, handle: Any) -> int | None: ...
    def end(self, handle: Any) -> None: ...  # asks the job to close its kernel; `poll` returns its exit code then
    def kill(self, handle: Any) -> None: ...  # also its kernel
    def stop(self, handles: list) -> None: ...  # the jobs and the workers


@dataclass
class Running:
    """A job at work. `since` is when its process made its log: before, Ray may queue it."""

    handle: Any
    since: float | None = None
    overdue: float | None = None  # when it was asked to end, at its time limit


class Suite:
    """Replays `jobs`, every job after those that it needs or follows; `run` returns True if all of them are finished.

    A job is done when its process ended with 0 AND its executed copy carries the end marker: papermill's metadata has
    `completed` even after the kernel was killed. `force` has the names of jobs that run even if nothing changed.
    `changed(job, status)` is called after every change.
    """

    def __init__(
        self,
        profile: str,
        jobs: list[Job],
        force: frozenset[str] = frozenset(),
        changed: Callable[[Job, Status], None] = lambda job, status: None,
    ):
        self.jobs, self.force, self.changed = jobs, force, changed
        self.by_name = {job.name: job for job in jobs}
        self.state_path = folder("executed") / f"{profile}.json"
        self.fingerprints = fingerprints(jobs)
        self.status = {job.name: Status(fingerprint=self.fingerprints[job.name]) for job in jobs}
        self.running: dict[str, Running] = {}
        self.unchanged: dict[str, bool] = {}

    def run(self, workers: Workers) -> bool:
        with _only_one_suite():
            self.earlier = self._read_state()
            for job in self.jobs:
                if self._is_unchanged(job):
                    self._set(job, **self.earlier[job.name] | {"state": "unchanged"})
            try:
                while self._start_ready(workers) or self.running:
                    time.sleep(POLL_SECONDS)
                    self._collect(workers)
            finally:  # after Ctrl-C and on a full disk too
                self._interrupt(workers)
        return all(status.state in FINISHED for status in self.status.values())

    def _read_state(self) -> dict[str, dict]:
        with suppress(OSError, ValueError):
            state = load_json(self.state_path)
            if isinstance(state, dict) and state.get("schema") == SCHEMA:
                jobs = STATES.validate_python(state.get("jobs"))
                for name in (name for status in jobs.values() for name in status.records):
                    record_path(name)  # it may lead out of the folder
                return {name: asdict(status) for name, status in jobs.items()}
        return {}

    def _is_unchanged(self, job: Job) -> bool:
        """Whether it is done with these sources and parameters, its files exist, and all before it is unchanged.

        Each job is looked at once. Of n jobs, each after all above it, the last one has 2^n paths to the first ones.
        """
        if job.name not in self.unchanged:
            self.unchanged[job.name] = self._is_kept(job)
        return self.unchanged[job.name]

    def _is_kept(self, job: Job) -> bool:
        before = self.earlier.get(job.name, {})
        return (
            job.name not in self.force
            and before.get("state") in FINISHED
            and before["fingerprint"] == self.fingerprints[job.name] == end_marker(copies_of(job).executed)
            and all(is_stored(name) for name in before["records"])
            and all(self._is_unchanged(self.by_name[other]) for other in job.earlier)
        )

    def _set(self, job: Job, **facts: Any) -> None:
        status = self.status[job.name]
        for name, value in facts.items():
            setattr(status, name, value)
        jobs = self.earlier | {name: asdict(status) for name, status in self.status.items()}
        save_json(self.state_path, {"schema": SCHEMA, "jobs": jobs})
        self.changed(job, status)

    def _start_ready(self, workers: Workers) -> bool:
        """Start the jobs that can start, block the jobs after a failed job; returns whether a job still waits."""
        for job in self.jobs:
            if self.status[job.name].state != "waiting":
                continue
            needs = {need: self.status[need] for need in job.needs}
            if failed := [need for need, status in needs.items() if status.state in ("failed", "blocked")]:
                self._set(job, state="blocked", error=_blocked(failed[0], needs[failed[0]]))
            elif workers.free() and all(self.status[other].state in ENDED for other in job.earlier):
                self._start(job, workers)
        return any(status.state == "waiting" for status in self.status.values())

    def _start(self, job: Job, workers: Workers) -> None:
        paths = copies_of(job)
        retrain = {"force_retrain": True} if job.name in self.force and "force_retrain" in job.accepts else {}
        order = {
            "notebook": str(job.notebook),
            "copy": str(paths.running),
            "parameters": job.parameters | retrain,
            "fingerprint": self.fingerprints[job.name],
        }
        try:
            delete(paths.running)
            delete(paths.log)
            self.running[job.name] = Running(workers.start(job, order, str(paths.log), paths.link))
        except OSError as error:  # its files cannot be written, or the system has no process left
            self._set(job, state="failed", error=_text(error))
        else:
            self._set(job, state="running")

    def _collect(self, workers: Workers) -> None:
        now = time.monotonic()
        for name, running in list(self.running.items()):
            job = self.by_name[name]
            if running.since is None and copies_of(job).log.exists():
                running.since = now
            exit_code = workers.poll(running.handle)
            if exit_code is not None:
                del self.running[name]
                self._conclude(job, exit_code, running, now)
            elif job.time_limit and running.since is not None and now > running.since + job.time_limit:
                _end_overdue(running, workers, now)

    def _conclude(self, job: Job, exit_code: int, running: Running, now: float) -> None:
        facts = {"seconds": round(now - (running.since or now), 2), "exit_code": exit_code}
        try:
            error = self._file_copy(job, exit_code, running)
        except OSError as problem:
            error = _text(problem)
        if error:
            self._set(job, state="failed", error=error, **facts)
        else:
            self._set(job, state="done", records=[record["name"] for record in records_of(job)], **facts)

    def _file_copy(self, job: Job, exit_code: int, running: Running) -> str | None:
        """Rename the executed copy. Returns the reason if the job failed; the last good copy stays then."""
        paths = copies_of(job)
        if exit_code == 0 and end_marker(paths.running) == self.fingerprints[job.name]:
            rename(paths.running, paths.executed)
            delete(paths.failed)
            return None
        if paths.running.exists():
            rename(paths.running, paths.failed)
        return _overdue(job) if running.overdue else reason(paths.log, exit_code)

    def _interrupt(self, workers: Workers) -> None:
        workers.stop([running.handle for running in self.running.values()])
        for name in list(self.running):
            del self.running[name]
            self._set(self.by_name[name], state="interrupted")


def _end_overdue(running: Running, workers: Workers, now: float) -> None:
    if running.overdue is None:
        running.overdue = now
        workers.end(running.handle)
    elif now > running.overdue + STOP_SECONDS:
        workers.kill(running.handle)


@contextmanager
def _only_one_suite() -> Iterator[None]:
    """Only one suite runs in a root, since profiles may share job names and so executed copies."""
    path = folder("executed") / "suite.lock"
    try:
        with lock(path, wait=False):
            yield
    except BlockingIOError as error:
        raise BlockingIOError(f"another suite runs in {path.parent}; wait for its end, or set KD_ROOT") from error


def _blocked(need: str, status: Status) -> str:
    """The error with the name of the job that failed first, through any number of blocked jobs."""
    return status.error if status.state == "blocked" else f"needs {need}, which failed: {status.error}"


def _overdue(job: Job) -> str:
    limit = limit_text(job.time_limit)
    return f"time_limit = {limit}: the job took longer and was ended; raise it in the profile, or give --time-limit"


def _text(error: OSError) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())

"""The schedule: the order of the jobs, the rule for a job that is done, and the state that a suite continues from."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kdhelpers.artifacts import delete, folder, load_json, load_record, lock, records, rename, save_json, weights_path
from kdhelpers.suite.profiles import Job, fingerprints
from kdhelpers.suite.replay import end_marker

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


class Workers(Protocol):
    description: str
    at_once: int  # jobs

    def free(self) -> bool: ...
    def start(self, job: Job, order: dict, log: str, copy: str) -> Any: ...
    def poll(self, handle: Any) -> int | None: ...
    def stop(self, handles: list) -> None: ...


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
        self.running: dict[str, tuple[Any, float]] = {}

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
        with suppress(FileNotFoundError, ValueError):
            state = load_json(self.state_path)
            if state.get("schema") == SCHEMA:
                return state["jobs"]
        return {}

    def _is_unchanged(self, job: Job) -> bool:
        """Whether it is done with these sources and parameters, its files exist, and all before it is unchanged."""
        before = self.earlier.get(job.name, {})
        return (
            job.name not in self.force
            and before.get("state") in FINISHED
            and before["fingerprint"] == self.fingerprints[job.name] == end_marker(copies_of(job).executed)
            and all(_is_stored(name) for name in before["records"])
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
        delete(paths.running)
        retrain = {"force_retrain": True} if job.name in self.force and "force_retrain" in job.accepts else {}
        order = {
            "notebook": str(job.notebook),
            "copy": str(paths.running),
            "parameters": job.parameters | retrain,
            "fingerprint": self.fingerprints[job.name],
        }
        handle = workers.start(job, order, str(paths.log), paths.link)
        self.running[job.name] = handle, time.monotonic()
        self._set(job, state="running")

    def _collect(self, workers: Workers) -> None:
        for name, (handle, started) in list(self.running.items()):
            exit_code = workers.poll(handle)
            if exit_code is not None:
                del self.running[name]
                self._conclude(self.by_name[name], exit_code, time.monotonic() - started)

    def _conclude(self, job: Job, exit_code: int, seconds: float) -> None:
        paths = copies_of(job)
        facts = {"seconds": round(seconds, 2), "exit_code": exit_code}
        if exit_code == 0 and end_marker(paths.running) == self.fingerprints[job.name]:
            rename(paths.running, paths.executed)
            delete(paths.failed)
            self._set(job, state="done", records=[record["name"] for record in records_of(job)], **facts)
        else:
            if paths.running.exists():
                rename(paths.running, paths.failed)  # the last good copy stays
            self._set(job, state="failed", error=_reason(paths.log, exit_code), **facts)

    def _interrupt(self, workers: Workers) -> None:
        workers.stop([handle for handle, _ in self.running.values()])
        for name in list(self.running):
            del self.running[name]
            self._set(self.by_name[name], state="interrupted")


@contextmanager
def _only_one_suite() -> Iterator[None]:
    """Only one suite runs in a root, since profiles may share job names and so executed copies."""
    path = folder("executed") / "suite.lock"
    try:
        with lock(path, wait=False):
            yield
    except BlockingIOError as error:
        raise BlockingIOError(f"another suite runs in {path.parent}; wait for its end, or set KD_ROOT") from error


class Copies(NamedTuple):
    """A job's files in notebooks/executed/: papermill writes `running`, which is renamed at the end."""

    executed: Path
    running: Path
    failed: Path
    log: Path
    link: str  # the executed copy in the result records, relative to the root


def copies_of(job: Job) -> Copies:
    endings = ".ipynb .running.ipynb .failed.ipynb .log".split()
    paths = (folder("executed") / f"{job.name}{ending}" for ending in endings)
    return Copies(*paths, f"notebooks/executed/{job.name}.ipynb")


def records_of(job: Job) -> list[dict]:
    """The finished result records of this job's notebook; a job of the same name may use other data."""
    return [
        record
        for record in records()
        if record.get("notebook") == copies_of(job).link
        and record.get("status") == "finished"
        and job.parameters.get("dataset", record["run"].get("dataset")) == record["run"].get("dataset")
    ]


def _is_stored(name: str) -> bool:
    with suppress(ValueError):
        record = load_record(name)
        return bool(record) and record.get("status") == "finished" and weights_path(name).is_file()
    return False


def _blocked(need: str, status: Status) -> str:
    """The error with the name of the job that failed first, through any number of blocked jobs."""
    return status.error if status.state == "blocked" else f"needs {need}, which failed: {status.error}"


def _reason(log: Path, exit_code: int) -> str:
    """The log's last `error:` line; a killed process leaves none."""
    lines = re.findall(r"^error: (.*)$", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    if lines and exit_code:
        return lines[-1]
    killed = f", killed by signal {-exit_code} (out of memory?)" if exit_code < 0 else ""
    return f"exit code {exit_code}{killed}, no end marker; see {log}"

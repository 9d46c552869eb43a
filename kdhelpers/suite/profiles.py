"""Profiles: YAML lists of jobs (a notebook, its parameters, the jobs before it), checked whole before anything runs.

papermill ignores a parameter that the notebook lacks, so this module checks every name before a kernel starts. An
error is a ValueError of one line with the file, the job and the remedy.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kdhelpers.artifacts import load_yaml, read_file
from kdhelpers.messages import short
from kdhelpers.nearest import guess, known_names
from kdhelpers.suite.matrix import expand
from kdhelpers.suite.notebooks import (
    PACKAGE,
    accepted_by,
    cells_of,
    notebook_names,
    notebooks_folder,
    parameters_of,
    source_of,
)
from kdhelpers.suite.times import seconds_of

COPIES = (".running", ".failed")  # of a job's executed copies, see copies.py
SOURCES = (".py", ".j2", ".css", ".csv", ".yaml")


def _refuse_copy(name: str) -> str:
    """The job `a` deletes `a.failed.ipynb` when it succeeds, which the job `a.failed` has written."""
    if name.endswith(COPIES):
        raise ValueError(f"name = {short(name)}: ends like a copy of another job; leave {Path(name).suffix} out")
    return name


class Entry(BaseModel):
    """A job as written in a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # part of file names
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"), AfterValidator(_refuse_copy)]
    notebook: str
    parameters: dict[str, Any] = {}
    needs: list[str] = []
    after: list[str] = []
    seeds: Literal["once", "each", "all"] = "once"
    num_gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None  # reserved by Ray; fractions share a GPU
    time_limit: Annotated[float, BeforeValidator(seconds_of)] | None = None  # written as 90s, 45min, 2h, 1d


@dataclass(frozen=True)
class Job:
    """A notebook to replay, after the jobs in `needs` have succeeded and those in `after` have ended in any way.

    `accepts` has the names of the parameters that the notebook takes; `seeds` is the number of seeds that it gets.
    """

    name: str
    entry: str
    notebook: Path
    parameters: dict[str, Any]
    needs: tuple[str, ...]
    after: tuple[str, ...]
    accepts: frozenset[str]
    num_gpus: float | None = None
    time_limit: float | None = None  # seconds
    seeds: int = 1

    @property
    def earlier(self) -> tuple[str, ...]:
        """The jobs that end before it starts."""
        return (*self.needs, *self.after)

    def is_named(self, patterns: Sequence[str]) -> bool:
        """Whether a pattern (`07_crd_*`) matches the job's name, or its entry's name, which stands for all seeds."""
        return any(fnmatchcase(name, pattern) for pattern in patterns for name in (self.name, self.entry))


def profile_names() -> list[str]:
    return sorted(path.stem for path in (notebooks_folder() / "profiles").glob("*.yaml"))


def profile_path(profile: str) -> Path:
    """The file of a profile, given by name or by path. Raises ValueError that lists the names."""
    named = notebooks_folder() / "profiles" / f"{profile}.yaml"
    path = named if named.is_file() else Path(profile)
    if not path.is_file():
        known = known_names(profile, profile_names()) if profile_names() else "clone the repository, which has profiles"
        raise ValueError(f"profile = {profile}: no such name or file; {known}")
    return path


def summary_of(profile: str) -> str:
    """The first clause of the comment that a profile begins with, without the profile's name."""
    lines = read_file(profile_path(profile)).decode(errors="replace").splitlines()
    comment = " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))
    return re.split(r"[.:;] ", comment.removeprefix(f"{profile}: ") + " ")[0].strip()


def load_profile(profile: str, seeds: Sequence[int] = (0,), only: Sequence[str] = ()) -> list[Job]:
    """The validated jobs of a profile in its order; a job with `seeds: each` once per seed.

    `only` keeps the named jobs (`Job.is_named`) and the jobs that they need. Raises ValueError for a faulty profile.
    """
    path = profile_path(profile)
    entries = _read(path)
    if repeated := _repeated(seeds):
        raise ValueError(f"--seeds: {repeated} is given twice")
    jobs = [job for entry in entries for job in _replicate(path, entry, entries, seeds)]
    if repeated := _repeated(job.name for job in jobs):
        raise ValueError(f"{path}: two jobs are named {repeated!r}; give every job its own name")
    _refuse_cycle(path, jobs)
    return _select(path, jobs, only) if only else jobs


def limited(jobs: list[Job], time_limit: str | None) -> list[Job]:
    """The jobs, with this time limit where the profile gives none."""
    seconds = seconds_of(time_limit) if time_limit else None
    return [replace(job, time_limit=job.time_limit or seconds) for job in jobs]


def _read(path: Path) -> list[Entry]:
    content = load_yaml(path)
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path}: a profile is a list of jobs; write `- {{name: ..., notebook: ...}}`")
    return [entry for number, item in enumerate(content, start=1) for entry in _entries(path, number, item)]


def _entries(path: Path, number: int, item: Any) -> list[Entry]:
    name = short(item["name"]) if isinstance(item, dict) and "name" in item else number
    try:
        return [Entry.model_validate(job) for job in expand(item)]
    except ValidationError as error:
        first = error.errors()[0]
        field = short(first["loc"][0]) if first["loc"] else "entry"
        unknown = f"unknown key {field!r}; known: {', '.join(Entry.model_fields)}, matrix"
        plain = f"{field}: {first['msg']}".replace(f"{field}: Value error, {field}", field)
        problem = unknown if first["type"] == "extra_forbidden" else plain if "; " in plain else f"{plain}; correct it"
        raise ValueError(f"{path}: job {name!r}: {problem}") from error
    except ValueError as error:
        raise ValueError(f"{path}: job {name!r}: {short(error, 300)}") from error


def _replicate(path: Path, entry: Entry, entries: list[Entry], seeds: Sequence[int]) -> list[Job]:
    notebook, accepts = _notebook(path, entry)
    together = {"seeds": " ".join(map(str, seeds))} if entry.seeds == "all" else {}
    return [
        Job(
            name=_replica(entry.name, seed),
            entry=entry.name,
            notebook=notebook,
            parameters=entry.parameters | together | ({} if seed is None else {"seed": seed}),
            needs=_replicas(_entries_of(path, entry, "needs", entries), seed, seeds),
            after=_replicas(_entries_of(path, entry, "after", entries), seed, seeds),
            accepts=accepts,
            num_gpus=entry.num_gpus,
            time_limit=entry.time_limit,
            seeds=len(seeds) if together else 1,
        )
        for seed in (seeds if entry.seeds == "each" else [None])
    ]


def _replica(name: str, seed: int | None) -> str:
    return f"{name}_seed{seed}" if seed else name  # seed 0 keeps the plain name, as the stored runs do


def _entries_of(path: Path, entry: Entry, key: str, entries: list[Entry]) -> Iterable[Entry]:
    """The jobs that `needs` or `after` names. A pattern in `after` matches the jobs above the entry alone."""
    by_name = {other.name: other for other in entries}
    above = list(takewhile(lambda name: name != entry.name, by_name))
    for pattern in getattr(entry, key):
        candidates = above if key == "after" else [name for name in by_name if name != entry.name]
        named = [pattern] if pattern in by_name else [name for name in candidates if fnmatchcase(name, pattern)]
        if not named:
            verb, place = {"needs": ("needs", "here"), "after": ("is after", "above it")}[key]
            problem = f"{verb} {short(pattern)!r}, which is not a job {place}; {known_names(pattern, by_name)}"
            raise ValueError(f"{path}: job {entry.name!r} {problem}")
        yield from (by_name[name] for name in named)


def _replicas(entries: Iterable[Entry], seed: int | None, seeds: Sequence[int]) -> tuple[str, ...]:
    """A replica is after its own seed's replica of a replicated job; a job that runs once is after all replicas."""
    own = seeds if seed is None else [seed]
    names = (
        _replica(other.name, replica) for other in entries for replica in (own if other.seeds == "each" else [None])
    )
    return tuple(dict.fromkeys(names))


def _notebook(path: Path, entry: Entry) -> tuple[Path, frozenset[str]]:
    """The entry's notebook and the names that it accepts, which include every parameter of the entry."""
    name, known = entry.notebook.removesuffix(".ipynb"), notebook_names()
    if name not in known:  # also a path: a profile cannot have code run that lies elsewhere
        unknown = f"unknown notebook {short(entry.notebook)!r}"
        raise ValueError(f"{path}: job {entry.name!r}: {unknown}; {known_names(name, known)}")
    notebook = notebooks_folder() / f"{name}.ipynb"
    accepts = accepted_by(notebook)
    seeding = {"each": ["seed"], "all": ["seeds"]}.get(entry.seeds, [])
    if set(seeding) & set(entry.parameters):
        sets = f"`seeds: {entry.seeds}` sets the parameter {seeding[0]}"
        raise ValueError(f"{path}: job {entry.name!r}: {sets}; remove one of the two")
    if missing := [name for name in (*entry.parameters, *seeding) if name not in accepts]:
        raise ValueError(
            f"{path}: job {entry.name!r}: notebook {notebook.stem} has no parameter {short(missing[0])!r}; "
            f"{guess(missing[0], sorted(accepts))}it has {', '.join(parameters_of(notebook)) or 'none'}"
        )
    return notebook, accepts


def _repeated(values: Iterable) -> str | None:
    return next((str(value) for value, count in Counter(values).items() if count > 1), None)


def _refuse_cycle(path: Path, jobs: list[Job]) -> None:
    try:
        TopologicalSorter({job.name: job.earlier for job in jobs}).prepare()
    except CycleError as error:
        circle = short(" -> ".join(reversed(error.args[1])), 300)
        raise ValueError(f"{path}: jobs wait for each other in a circle: {circle}; remove one of the needs") from error


def _select(path: Path, jobs: list[Job], only: Sequence[str]) -> list[Job]:
    wanted = [job.name for job in jobs if job.is_named(only)]
    if unknown := {name for name in only if not any(job.is_named([name]) for job in jobs)}:
        wrong = sorted(unknown)[0]
        raise ValueError(
            f"--only = {wrong}: is not a job of {path.stem}; {known_names(wrong, [job.name for job in jobs])}"
        )
    return with_needs(jobs, wanted)


def with_needs(jobs: Sequence[Job], names: Sequence[str]) -> list[Job]:
    """The named jobs and the jobs that they need; they wait for no others."""
    by_name, kept, wanted = {job.name: job for job in jobs}, set(), [*names]
    while wanted:
        name = wanted.pop()
        if name not in kept:
            kept.add(name)
            wanted += by_name[name].needs
    return [replace(job, after=tuple(name for name in job.after if name in kept)) for job in jobs if job.name in kept]


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each after the jobs that end before it starts."""
    by_name = {job.name: job for job in jobs}
    names = TopologicalSorter({job.name: job.earlier for job in jobs}).static_order()
    return [by_name[name] for name in names if name in by_name]


def fingerprints(jobs: list[Job]) -> dict[str, str]:
    """Job -> SHA-256 over its notebook's cells, its parameters, this package's sources and the jobs before it."""
    package = package_fingerprint()
    hashes: dict[str, str] = {}
    for job in in_order(jobs):
        cells = [[cell["cell_type"], source_of(cell)] for cell in cells_of(job.notebook)]
        facts = [cells, job.parameters, package, [hashes[other] for other in job.earlier]]
        hashes[job.name] = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return hashes


def package_fingerprint() -> str:
    digest = hashlib.sha256()
    for source in sorted(path for path in PACKAGE.rglob("*") if path.suffix in SOURCES):
        digest.update(f"{source.relative_to(PACKAGE).as_posix()}\n".encode() + source.read_bytes())
    return digest.hexdigest()

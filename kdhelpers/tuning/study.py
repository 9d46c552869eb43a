"""A study: the methods that are compared, their spaces, and the records of their trials, from which it continues.

The records are the only storage. A trial belongs to the process that holds its lock, so several processes share a
study, and a trial that its process left unfinished is taken up again.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdhelpers import artifacts
from kdhelpers.messages import short
from kdhelpers.training.run import Run, distinctive
from kdhelpers.training.sweep import method_runs
from kdhelpers.tuning.sampler import suggest
from kdhelpers.tuning.space import Dimension, Space, flat, read_space, space_of, with_values

FOLDER = "trials"  # in json_results/, so that no page or table of results reads them
PARTS = ("run", "space")  # what is stored of each method
DEFAULT = "the default"
DIVERGED, INVALID = "FloatingPointError", "invalid setting"  # errors that belong to the setting
COUNTED = (DIVERGED, INVALID)
LONGEST = 80  # letters of a name: those of its files have a method, a seed and a number, too


@dataclass(frozen=True)
class Trial:
    """One training of a method with the values of its searched fields."""

    study: "Study"
    key: str  # of the method
    number: int
    values: dict[str, Any]

    @property
    def name(self) -> str:
        return self.study.trial_name(self.key, self.number)

    @property
    def facts(self) -> dict:
        """What its record holds besides the facts of a training."""
        return {"trial": {"study": self.study.name, "key": self.key, "number": self.number, "values": self.values}}

    def run(self) -> Run:
        """Raises the ValueError of a `Run`: values that are valid each may not be together."""
        return with_values(self.study.runs[self.key], self.values)


@dataclass(frozen=True)
class Study:
    """`trials` of each method. `runs`: by key of the method its first trial; `spaces`: what is searched around it."""

    name: str
    trials: int
    runs: dict[str, Run]
    spaces: dict[str, Space]

    def trial_name(self, key: str, number: int) -> str:
        return f"{FOLDER}/{self.name}/{key}-{number:03d}"

    def ended_record(self, key: str, number: int) -> dict | None:
        """The record of a trial, if it counts: it has finished, or its setting made it fail."""
        record = self._record(key, number) or {}
        by_setting = record.get("status") == "failed" and (record.get("error") or "").startswith(COUNTED)
        return record if record.get("status") == "finished" or by_setting else None

    def _record(self, key: str, number: int) -> dict | None:
        """What is stored of a trial. Raises ValueError for a file that is not of this trial."""
        name = self.trial_name(key, number)
        if not (record := artifacts.load_record(name)):
            return None
        space, start = self.spaces[key], flat(self.runs[key])
        trial, top1 = record.get("trial") or {}, (record.get("metrics") or {}).get("val_top1_pct")
        values = trial.get("values", {})
        fits = values.keys() == space.keys() and all(space[n].takes(value, start[n]) for n, value in values.items())
        if not fits or trial["number"] != number or (record["status"] == "finished" and top1 is None):
            raise ValueError(f"{artifacts.record_path(name)}: is not trial {number} of {key}; delete it to train it")
        return record

    def ended(self, key: str) -> list[dict]:
        """The records of the method's trials that have ended, in order."""
        return list(filter(None, (self.ended_record(key, number) for number in range(self.trials))))

    @cached_property
    def order(self) -> list[tuple[str, int]]:
        """The methods in turn, so that an interrupted study is fair as well."""
        return [(key, number) for number in range(self.trials) for key in self.runs]

    def open_trials(self) -> int:
        return sum(not self.ended_record(*place) for place in self.order)

    @contextlib.contextmanager
    def claim(self) -> Iterator[Trial | None]:
        """The next trial that has not ended and that no other process trains, held while the block runs."""
        with contextlib.ExitStack() as stack:
            with artifacts.lock(self._lock("study")):  # one process chooses at a time
                self._store()
                trial = next(filter(None, (self._take(stack, *place) for place in self.order)), None)
                if trial and not artifacts.load_record(trial.name):
                    self.write(trial, status="running", error=None)
            yield trial

    def _take(self, stack: contextlib.ExitStack, key: str, number: int) -> Trial | None:
        if self.ended_record(key, number):
            return None
        try:
            stack.enter_context(artifacts.lock(self._lock(f"{key}-{number:03d}"), wait=False))
        except BlockingIOError:
            return None
        stored = self._record(key, number)  # of a trial that was interrupted
        return Trial(self, key, number, stored["trial"]["values"] if stored else self._values(key, number))

    def _values(self, key: str, number: int) -> dict[str, Any]:
        run, space = self.runs[key], self.spaces[key]
        if number == 0:
            return {name: flat(run)[name] for name in space}
        earlier = [record for record in self.ended(key) if record["trial"]["number"] < number]
        finished = [record for record in earlier if record["status"] == "finished"]
        history = [(record["trial"]["values"], record["metrics"]["val_top1_pct"]) for record in finished]
        return suggest(space, history, run.seed, number)

    def write(self, trial: Trial, **facts: Any) -> None:
        """The record of a trial that does not train yet, or never will."""
        head = {"schema": artifacts.SCHEMA, "name": trial.name, "identity": "not trained"}
        artifacts.save_json(artifacts.record_path(trial.name), head | facts | trial.facts)

    def _lock(self, part: str) -> Path:
        return artifacts.folder("checkpoints") / f"{FOLDER}-{self.name}-{part}.lock"

    def check_stored(self) -> None:
        """ValueError if trials of this name were made with other settings; store them if there are none."""
        with artifacts.lock(self._lock("study")):
            self._store()

    def _store(self) -> None:
        path = artifacts.record_path(f"{FOLDER}/{self.name}/study")
        stored, facts = _stored(path) if path.is_file() else {}, self._facts()
        for key in facts:
            begun = artifacts.record_path(self.trial_name(key, 0)).is_file()
            if begun and stored.get(key, facts[key]) != facts[key]:
                other = _difference(stored[key], facts[key])
                raise ValueError(
                    f"study = {self.name}: {key} was tuned with other settings ({other}); take another --name, or "
                    f"delete {path.parent}"
                )
        if stored | facts != stored:
            artifacts.save_json(path, stored | facts)

    def _facts(self) -> dict[str, dict]:
        """By method: its first trial and its space, as JSON gives them back."""
        facts = {
            key: {
                "run": distinctive(run.model_dump()) | {"teacher": run.teacher},
                "space": {name: asdict(dimension) for name, dimension in self.spaces[key].items()},
            }
            for key, run in self.runs.items()
        }
        return json.loads(json.dumps(facts))


def _stored(path: Path) -> dict[str, dict]:
    """What `check_stored` wrote."""
    content = artifacts.load_json(path, f"delete {path.parent}, or take another --name")
    facts = list(content.values()) if isinstance(content, dict) else [None]
    parts = [part for each in facts for part in (each.values() if isinstance(each, dict) else [None])]
    if not all(isinstance(part, dict) for part in parts) or any(each.keys() != {*PARTS} for each in facts):
        raise ValueError(f"{path}: is not a study of this version; delete {path.parent}, or take another --name")
    return content


def make_study(
    values: Mapping[str, Any], methods: str, trials: int, name: str | None = None, space: str | None = None
) -> Study:
    """The study of flat names (as `run_of` takes them) and methods (as `method_runs` takes them).

    Raises ValueError, before anything trains, for settings without held-out images and for those that use test images.
    """
    runs = dict(zip(_keys(methods), method_runs(values, methods), strict=True))
    if not runs:
        raise ValueError('methods: none given; write for instance "si; lm; dkd"')
    given = read_space(Path(space), [run.method for run in runs.values()]) if space else None
    for run in runs.values():
        _check(run)
    spaces = {key: space_of(run, given, space or "space") for key, run in runs.items()}
    first = next(iter(runs.values()))
    return Study(_study_name(name or f"{first.model}_{first.dataset}"), trials, runs, spaces)


def _keys(methods: str) -> list[str]:
    """A file name per method of the text: dkd-beta-2 of `dkd beta=2`."""
    texts = [text.strip() for text in methods.split(";") if text.strip()]
    keys = [re.sub(r"[^\w.]+", "-", text).strip("-") for text in texts]
    if repeated := [text for text, key in zip(texts, keys, strict=True) if keys.count(key) > 1]:
        raise ValueError(f"methods = {repeated[0]}: is given twice; keep one")
    return [key if len(key) < 100 else f"{key[:80]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}" for key in keys]


def _study_name(name: str) -> str:
    name = artifacts.file_name(name)
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise ValueError(f"name = {name}: is not a file name; use letters, digits and . _ - + only")
    if len(name) > LONGEST:
        raise ValueError(f"name = {name[:20]}...: has {len(name)} letters; take {LONGEST} at most")
    return name


def _check(run: Run) -> None:
    if run.val_fraction == 0:
        raise ValueError("val_fraction = 0: leaves no held-out images, on which tuning selects; raise it")
    if run.unlabelled == "test":
        raise ValueError("unlabelled = test: trains on the test images, which tuning never uses; take train:N")
    if run.role == "teacher" or run.epochs == 0:
        raise ValueError(f"role = {run.role}, epochs = {run.epochs}: tune trains students; take role=student")


def _difference(stored: Mapping, given: Mapping) -> str:
    """The first field that differs, with both values."""
    parts: Sequence[tuple[str, Any, Any]] = [
        (name, stored[part].get(name, DEFAULT), given[part].get(name, DEFAULT))
        for part in PARTS
        for name in sorted({*stored[part], *given[part]})
    ]
    name, before, now = next(part for part in parts if part[1] != part[2])
    return f"{short(name)}: {_shown(before)} then, {_shown(now)} now"


def _shown(value: Any) -> Any:
    """A dimension as it stands in study.json as `0.01 to 0.3 (log)`."""
    with contextlib.suppress(TypeError, ValueError):
        return Dimension(**value).text()
    return short(value)

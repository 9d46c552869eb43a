"""The search space: by method the fields that are searched and their ranges, checked before anything trains."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from kdhelpers.artifacts import load_yaml
from kdhelpers.messages import short
from kdhelpers.methods import METHODS
from kdhelpers.methods.parts.ranges import ContrastTemperature, NonNegative, Range, Temperature, Weight
from kdhelpers.nearest import check_known, known_names
from kdhelpers.training.run import OPTIONS, Run

DEFAULTS = files("kdhelpers.tuning") / "spaces.yaml"  # also inside a wheel
PARTS = ("every", "methods")
KINDS = {"weight": (Weight, NonNegative), "temperature": (Temperature, ContrastTemperature)}
EXAMPLE = "write {low: 0.01, high: 0.3, log: true}, {around: 4} or a list such as [1, 2, 4]"
# Trials of a comparison have these in common: the task, the images, the networks, the budget, the rule of selection.
COMMON = (
    "dataset image_size val_fraction split_seed unlabelled model model_options pretrained start_from role teacher "
    "other_image_size method placebo optimizer schedule epochs seed precision selection name hyperparameters "
    "optimizer_options schedule_options"
).split()


@dataclass(frozen=True)
class Dimension:
    """A searched field: an interval or, if there are `choices`, these values."""

    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False
    choices: tuple = ()

    def tidy(self, value: Any) -> Any:
        """The value with three significant digits, within the interval: what a table and a profile can state."""
        if self.choices or self.whole:
            return value
        return min(max(float(f"{value:.3g}"), self.low), self.high)

    def contains(self, value: Any) -> bool:
        return value in self.choices if self.choices else self.low <= value <= self.high

    def takes(self, value: Any, start: Any) -> bool:
        """Whether a trial may have the value: one of the dimension, or the start, which may lie outside."""
        return value == start or ((bool(self.choices) or isinstance(value, int | float)) and self.contains(value))

    @property
    def ends(self) -> tuple:
        return self.choices or (self.low, self.high)

    def text(self) -> str:
        if self.choices:
            return " or ".join(map(str, self.choices))
        return f"{self.low:g} to {self.high:g}" + " (log)" * self.log


Space = dict[str, Dimension]


def space_of(run: Run, given: Mapping[str, Any] | None = None, source: str = "space") -> Space:
    """What is searched for the run's method; `given`, the content of a user's file, replaces parts of the defaults.

    Raises ValueError, with field, value and remedy, for a field that the method lacks, for a range that is empty or out
    of the field's own, and for a field that all trials have in common.
    """
    given = given or {}
    own = (given.get("methods") or {}).get(run.method)
    wanted = {**given.get("every", _defaults()["every"]), **(_derived(run) if own is None else own)}
    start, space = flat(run), {}
    for name, range_ in wanted.items():
        what = f"{source}: {short(name)} of {run.method}"
        _check_field(name, start, what)
        if dimension := _dimension(range_, start[name], what, _limits(run.method).get(name)):
            _check_ends(run, name, dimension, what)
            space[name] = dimension
    if not space:
        raise ValueError(f"{source}: nothing is searched for {run.method}; name a field, as in lr: {{around: 5}}")
    return space


def read_space(path: Path, methods: list[str]) -> dict[str, Any]:
    """The content of a user's file. Raises ValueError for other content, FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"space = {path}: no such file; give the path of a YAML file")
    content = load_yaml(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: is not a mapping; write `every:` or `methods:` and what is searched below it")
    for part, fields in content.items():
        check_known(f"{path}", part, PARTS)
        for name, below in {part: fields}.items() if part == "every" else _mapping(fields, f"{path}: {part}").items():
            _mapping(below, f"{path}: {short(name)}")
    for method in content.get("methods") or {}:
        check_known(f"{path}: methods", method, METHODS)
        if method not in methods:
            raise ValueError(f"{path}: methods = {short(method)}: is not compared; remove it or add it to --methods")
    return content


def flat(run: Run) -> dict[str, Any]:
    """The fields of a run with the options of its method, optimiser and schedule; a hyperparameter wins its name."""
    fields = {name: value for name, value in run.model_dump().items() if name not in OPTIONS}
    return {**fields, **run.schedule_options, **run.optimizer_options, **run.hyperparameters}


def with_values(run: Run, values: Mapping[str, Any]) -> Run:
    """The run with other values of searched fields. Raises the ValueError of a `Run`."""
    fields = run.model_dump()
    for name, value in values.items():
        holder = next((field for field in OPTIONS if name in fields[field]), None)  # a hyperparameter wins its name
        fields |= {holder: fields[holder] | {name: value}} if holder else {name: value}
    return Run(**fields)


@cache
def _defaults() -> dict[str, Any]:
    return yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))


def _derived(run: Run) -> dict[str, Any]:
    """The default ranges of the method's own hyperparameters."""
    defaults = _defaults()
    if run.method in defaults["methods"]:
        return defaults["methods"][run.method]
    idle = {name for name, other in defaults["unused"].items() if run.hyperparameters.get(other) == 0}
    kinds = {name: kind for name, kind in _kinds(run.method).items() if name not in (*defaults["fixed"], *idle)}
    return {name: defaults["kinds"][kind] for name, kind in kinds.items()}


def _kinds(method: str) -> dict[str, str]:
    """Hyperparameter -> weight or temperature, by its annotation; other hyperparameters are left out."""
    kind_of = {_range(hint): kind for kind, hints in KINDS.items() for hint in hints}
    return {name: kind_of[limits] for name, limits in _limits(method).items() if limits in kind_of}


def _limits(method: str) -> dict[str, Range]:
    """Hyperparameter -> the range of its annotation."""
    hints = get_type_hints(METHODS[method].__init__, include_extras=True)
    return {name: limits for name, hint in hints.items() if (limits := _range(hint))}


def _range(hint: Any) -> Range | None:
    return next((part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Range)), None)


def _mapping(value: Any, what: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{what} = {short(value)}: is not a mapping of fields; {EXAMPLE}")
    return value


def _check_field(name: str, start: Mapping[str, Any], what: str) -> None:
    if name in COMMON:
        raise ValueError(f"{what}: is common to all trials of a comparison; remove it and give it as NAME=VALUE")
    if name not in start:
        raise ValueError(f"{what}: unknown; {known_names(name, [key for key in start if key not in COMMON])}")


def _dimension(range_: Any, start: Any, what: str, limits: Range | None) -> Dimension | None:
    """None for `around` a start value of 0. An interval around a value ends at the limits of its field."""
    number = isinstance(start, (int, float)) and not isinstance(start, bool)
    if isinstance(range_, list):
        values = [_number(value, what, isinstance(start, int)) for value in range_] if number else range_
        if len(values) < 2 or any(values.count(value) > 1 for value in values):
            raise ValueError(f"{what} = {short(range_)}: needs two or more different values; {EXAMPLE}")
        return Dimension(choices=tuple(values))
    range_ = _mapping(range_, what)
    if set(range_) == {"around"} and number:
        factor = _number(range_["around"], f"{what}: around")
        if factor <= 1:
            raise ValueError(f"{what}: around = {factor:g}: must be above 1; 4 means a quarter to four times the start")
        return _around(start, factor, limits or Range(0)) if start > 0 else None
    if set(range_) - {"low", "high", "log"} or not {"low", "high"} <= set(range_):
        raise ValueError(f"{what} = {short(range_)}: is not a range; {EXAMPLE}")
    if not number:
        raise ValueError(f"{what} = {short(range_)}: is not a number, such as {start!r}; give a list of values")
    return _interval(range_, start, what)


def _around(start: float, factor: float, limits: Range) -> Dimension:
    low, high, whole = max(start / factor, limits.low), min(start * factor, limits.high), isinstance(start, int)
    return Dimension(max(1, round(low)) if whole else low, round(high) if whole else high, True, whole)


def _interval(range_: Mapping[str, Any], start: float, what: str) -> Dimension:
    whole = isinstance(start, int)
    low, high = (_number(range_[end], f"{what}: {end}", whole) for end in ("low", "high"))
    log = range_.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"{what}: log = {short(log)}: must be true or false; correct it")
    if not low < high:
        raise ValueError(f"{what}: low = {low:g}: must be below high = {high:g}; exchange or correct them")
    if log and low <= 0:
        raise ValueError(f"{what}: low = {low:g}: must be above 0 on a logarithmic scale; raise it or leave log out")
    return Dimension(low, high, log, whole)


def _number(value: Any, what: str, whole: bool = False) -> float:
    """Also of 1e-4, which YAML reads as a text."""
    number = math.nan
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = math.nan if isinstance(value, bool) else float(value)
    if not math.isfinite(number):
        raise ValueError(f"{what} = {short(value)}: is not a finite number; {EXAMPLE}")
    if whole and number != int(number):
        raise ValueError(f"{what} = {short(value)}: must be a whole number; round it")
    return int(number) if whole else number


def _check_ends(run: Run, name: str, dimension: Dimension, what: str) -> None:
    """Each end, and each choice, must make a valid run."""
    for value in dimension.ends:
        try:
            with_values(run, {name: value})
        except ValueError as error:
            raise ValueError(
                f"{what} = {short(value)}: {short(str(error).removeprefix('Run: '), 300)}; correct it"
            ) from None

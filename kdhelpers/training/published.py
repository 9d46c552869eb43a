"""Published hyperparameters: `settings.yaml`, by row of the tables and pair of networks; and `published` as a text."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from kdhelpers.messages import inform
from kdhelpers.methods import METHODS
from kdhelpers.models import MODELS, is_network
from kdhelpers.nearest import guess
from kdhelpers.training.options import complete_options, named_values
from kdhelpers.weights.load import find_teacher

SETTINGS = files("kdhelpers.training") / "settings.yaml"  # also inside a wheel
EXAMPLE = '"published temperature=2"'


@dataclass(frozen=True)
class Settings:
    """The published settings of a row: an entry of `settings.yaml`, which describes the fields."""

    method: str
    paper: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, dict[str, Any] | str] = field(default_factory=dict)
    others: str = ""
    note: str = ""

    @property
    def known_pairs(self) -> list[str]:
        """The pairs whose values are known or taken from another pair, as teacher>student."""
        benchmark = _content()["benchmark"]
        return benchmark if self.others or not self.pairs else list(self.pairs)

    def source(self, pair: str) -> str:
        """The pair that the values of `pair` are published for: itself, if its own values are known."""
        own = self.pairs.get(pair, self.others)
        return own if isinstance(own, str) and own else pair

    def by_pair(self, pair: str) -> dict[str, Any]:
        """The values that differ by pair; empty if the recipe has all, or if none are known."""
        own = self.pairs.get(self.source(pair), {})
        return own if isinstance(own, dict) else {}

    def values(self, pair: str) -> dict[str, Any]:
        return self.hyperparameters | self.recipe | self.by_pair(pair)

    def fits(self, given: Mapping[str, Any]) -> bool:
        """Whether no given hyperparameter contradicts those that identify the row."""
        return all(
            (bool(given[name]) if isinstance(value, bool) else given[name]) == value
            for name, value in self.hyperparameters.items()
            if name in given
        )


@cache
def _content() -> dict:
    with SETTINGS.open(encoding="utf-8") as lines:
        return yaml.safe_load(lines)


@cache
def published_settings() -> dict[str, Settings]:
    """Label of a row (KD, CRD+KD, ...) -> its settings."""
    return {label: Settings(**entry) for label, entry in _content()["rows"].items()}


def is_published(text: Any) -> bool:
    """Whether hyperparameters are a text such as `published`, `resnet56>resnet20` or `published temperature=2`."""
    return isinstance(text, str) and bool(re.match(r"published\b|[\w.-]+>[\w.-]+(\s|$)", text.strip()))


def published_hyperparameters(text: str, run: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> dict:
    """The published hyperparameters of a run's method, as a mapping; the user is informed which, and of what paper.

    text: `published` is the pair of the run's teacher and model, `resnet56>resnet20` another pair. Values after it, as
    in `published temperature=2`, and `more` replace published ones. If a method has several rows, they choose the row:
    kd_weight=1 means CRD+KD, not CRD. run: its method, teacher, model and dataset. Raises ValueError with the names at
    hand if nothing is published.
    """
    head, _, words = text.strip().partition(" ")
    given = named_values(words, "hyperparameters", EXAMPLE) | dict(more or {})
    label, row = _row(head, run["method"], _coerced(run["method"], given))
    pair = f"{_architecture(run)}>{run['model']}" if head == "published" else head
    if pair not in row.known_pairs:
        raise ValueError(
            f"hyperparameters = {head}: {label} has no published settings for {pair}; {guess(pair, row.known_pairs)}"
            f"name one of its pairs: {', '.join(row.known_pairs)}"
        )
    values = _coerced(run["method"], row.values(pair) | given)
    inform(_sentence(head, label, row, pair, values))
    return values


def _coerced(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values, as the method takes them."""
    complete = complete_options(METHODS[method], given, f"hyperparameters of {method}")
    return {name: complete[name] for name in given if name in complete}


def _row(head: str, method: str, given: Mapping[str, Any]) -> tuple[str, Settings]:
    """The first row of the method that the given hyperparameters fit."""
    rows = {label: row for label, row in published_settings().items() if row.method == method}
    if not rows:
        known = sorted({row.method for row in published_settings().values()} & set(METHODS))
        raise ValueError(
            f"hyperparameters = {head}: method {method} has no published settings; give its hyperparameters, or take "
            f"a method that has: {', '.join(known)}"
        )
    for label, row in rows.items():
        if row.fits(given):
            return label, row
    texts = [f"{label}: {_text(row.hyperparameters)}" for label, row in rows.items()]
    raise ValueError(
        f"hyperparameters = {head}: {_text(given)} fits no published row of {method}; published: {'; '.join(texts)}"
    )


def _architecture(run: Mapping[str, Any]) -> str:
    """The architecture of the run's teacher, if need be from the description of its weights."""
    teacher, remedy = run.get("teacher"), "name a pair, as in hyperparameters=resnet56>resnet20"
    if not teacher:
        raise ValueError(f"hyperparameters = published: the run has no teacher; give one, or {remedy}")
    if is_network(teacher):
        return teacher
    try:
        return find_teacher(str(teacher), run["dataset"]).description["model"]
    except (FileNotFoundError, KeyError):
        raise ValueError(
            f"hyperparameters = published: the architecture of teacher {teacher} is not known, because no description "
            f"of these weights is stored; {guess(teacher, MODELS)}{remedy}"
        ) from None


def _sentence(head: str, label: str, row: Settings, pair: str, values: Mapping[str, Any]) -> str:
    """Which settings, of which paper, and what is not published, in a line."""
    source = row.source(pair)
    borrowed = f"not published for {pair}; the values of {source} are taken" if source != pair else ""
    notes = "; ".join(filter(None, [borrowed, row.note]))
    return f"hyperparameters = {head}: {label} for {pair}, {row.paper}: {_text(values)}{f' ({notes})' if notes else ''}"


def _text(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={shlex.quote(str(value))}" for name, value in values.items())

"""Options as texts and mappings: checked against the signature of what they configure, completed with its defaults."""

import inspect
import re
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from kdhelpers.messages import short
from kdhelpers.nearest import known_names

REQUIRED = inspect.Parameter.empty


def named_values(text: str, what: str, example: str) -> dict[str, str]:
    """{"alpha": "1", "steps": "crop flip"} of "alpha=1 steps='crop flip'", or of "alpha:1", as papermill reads no
    parameter whose line has a second equals sign. Raises ValueError for other text, and for a name twice."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{what}: {text.strip()!r}: {error}; write for instance {example}") from None
    pairs = [re.fullmatch(r"(\w+)[=:](.+)", word, re.DOTALL) for word in words]
    if bad := [word for word, pair in zip(words, pairs, strict=True) if not pair]:
        raise ValueError(f"{what}: {bad[0]!r} in {text.strip()!r} is not name=value; write for instance {example}")
    named = {pair[1]: pair[2] for pair in pairs}
    if len(named) < len(pairs):
        raise ValueError(f"{what}: {text.strip()!r} gives a value twice; keep one")
    return named


def complete_options(target: Callable, given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The keyword-only parameters of `target`: `given` values coerced to the annotated types, defaults for the rest.

    Options that a method has retired are dropped at the value that they had.
    """
    parameters, retired = _parameters(target), getattr(target, "retired", {})
    given = {name: value for name, value in given.items() if name not in retired or value != retired[name]}
    if unknown := sorted(set(given) - set(parameters)):
        raise ValueError(f"{what}: unknown {short(', '.join(unknown))}; {known_names(unknown[0], parameters)}")
    if missing := [name for name, default in parameters.items() if default is REQUIRED and name not in given]:
        raise ValueError(f"{what}: {missing[0]} has no default; give a value")
    return _coerced(target, parameters | given, what)


@cache
def option_defaults(configured: Callable) -> dict[str, Any]:
    """The default of each option; of a method also the value that options had which no longer exist."""
    defaults = {name: default for name, default in _parameters(configured).items() if default is not REQUIRED}
    return getattr(configured, "retired", {}) | _coerced(configured, defaults, configured.__name__)


def _parameters(target: Callable) -> dict[str, Any]:
    """Name -> default of each keyword-only parameter."""
    parameters = inspect.signature(target).parameters.values()
    return {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}


def _coerced(target: Callable, values: Mapping[str, Any], what: str) -> dict[str, Any]:
    hints, coerced = get_type_hints(target.__init__ if inspect.isclass(target) else target), {}
    for name, value in values.items():
        try:
            adapter, is_json = TypeAdapter(hints[name]), isinstance(value, str) and value[:1] in ("[", "{")
            value = adapter.validate_json(value) if is_json else adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError(f"{what}: {name} = {short(repr(value))}: {error.errors()[0]['msg']}") from None
        coerced[name] = list(value) if isinstance(value, tuple) else value  # as JSON gives it back
    return coerced

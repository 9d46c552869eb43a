"""Options as texts and mappings: checked against the signature of what they configure, completed with its defaults."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError


def check_known(field: str, name: Any, registry: Mapping[str, Any]) -> None:
    if name not in registry:
        close = get_close_matches(str(name), registry, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"{field} = {name}: unknown; {hint}known: {', '.join(registry)}")


def named_values(text: str, what: str, example: str) -> dict[str, str]:
    """{"alpha": "1", "beta": "12"} of "alpha=1 beta=12", or of "alpha:1 beta:12", as papermill reads no parameter whose
    line has a second equals sign. Raises ValueError for other text, and for a name twice."""
    pairs = [word.partition("=" if "=" in word else ":") for word in text.split()]
    if bad := [name + sign for name, sign, value in pairs if not (name and sign and value)]:
        raise ValueError(f"{what}: {bad[0]!r} in {text.strip()!r} is not name=value; write for instance {example}")
    named = {name: value for name, _, value in pairs}
    if len(named) < len(pairs):
        raise ValueError(f"{what}: {text.strip()!r} gives a value twice; keep one")
    return named


def complete_options(target: Callable, given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The keyword-only parameters of `target`: `given` values coerced to the annotated types, defaults for the rest."""
    parameters = {n: p for n, p in inspect.signature(target).parameters.items() if p.kind is p.KEYWORD_ONLY}
    if unknown := sorted(set(given) - set(parameters)):
        raise ValueError(f"{what}: unknown {', '.join(unknown)}; known: {', '.join(parameters) or 'none'}")
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    complete = {}
    for name, parameter in parameters.items():
        try:
            value = TypeAdapter(hints[name]).validate_python(given.get(name, parameter.default))
        except ValidationError as error:
            raise ValueError(f"{what}: {name} = {given[name]!r}: {error.errors()[0]['msg']}") from None
        complete[name] = list(value) if isinstance(value, tuple) else value  # as JSON gives it back
    return complete


@cache
def option_defaults(configured: Callable) -> dict[str, Any]:
    """The default of each option; of a method also the value that options had which no longer exist."""
    return getattr(configured, "retired", {}) | complete_options(configured, {}, configured.__name__)

"""A wrong name is answered with the nearest right ones: on the command line, in notebooks and in Python alike."""

import os
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

from kdhelpers.messages import short
from kdhelpers.registry import Registry

MOST = 60  # names in an error; of more the first ones
FEW = 12  # names that follow a guess; more are left out
LONGEST = 200  # characters of a name that are compared
SYNONYMS = {
    "learning_rate": "lr",
    "lambda": "lam",
    "optimiser": "optimizer",
    "network": "model",
    "kd": "lm",
    "ce": "si",
}


def check_known(field: str, name: object, known: Iterable[str], other: str = "") -> None:
    """ValueError with the nearest names unless `name` is known; `other` describes what else is allowed."""
    if name not in [*known]:  # a list in place of a name has no hash
        own = f"; register your own: {known.name}[{short(repr(name))}] = ..." if isinstance(known, Registry) else ""
        raise ValueError(f"{field} = {short(name)}: unknown; {known_names(name, known, other)}{own}")


def known_names(name: object, known: Iterable[str], other: str = "") -> str:
    """`did you mean adamw? known: sgd, adamw, lion`: the name nearest to `name`, then all names.

    Of more than 12 names the nearest stands alone.
    """
    names = list(dict.fromkeys(known))
    near = guess(name, names)
    if near and len(names) > FEW:
        return f"{near}`python -m kdhelpers list` has all names"
    listed = [*names[:MOST], *["..."][: len(names) > MOST], *[other][: len(other)]]
    return f"{near}known: {', '.join(listed) or 'none'}"


def guess(name: object, known: Iterable[str], count: int = 1) -> str:
    """`did you mean adamw? `, or an empty text if no name is near."""
    close = nearest(name, known, count)
    return f"did you mean {' or '.join(close)}? " if close else ""


def nearest(name: object, known: Iterable[str], count: int = 1) -> list[str]:
    """Up to `count` names: a synonym, those like `name` in any case, those that contain it or that it contains."""
    text, names = str(name)[:LONGEST].lower(), {other.lower(): other for other in known}
    alike = get_close_matches(text, names, max(count, 10))
    close = sorted(alike, key=lambda other: _likeness(text, other), reverse=True)[:count]
    contained = [other for other in names if len(text) > 2 and (text in other or (len(other) > 2 and other in text))]
    synonym = [other for other in names if other == SYNONYMS.get(text)]
    return [names[other] for other in dict.fromkeys([*synonym, *close, *contained])][:count]


def _likeness(text: str, other: str) -> tuple[float, int]:
    """Their share of common letters; of equal shares the longer common beginning wins."""
    return SequenceMatcher(None, other, text).ratio(), len(os.path.commonprefix([text, other]))

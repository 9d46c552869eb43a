"""The type of `METHODS`, `MODELS` and `DATASETS`: a dict that checks what is registered."""

import re
from collections.abc import Callable, Mapping
from typing import Any


class Registry(dict[str, Any]):
    """Name -> entry. `METHODS["mine"] = MyMethod` registers an entry, or replaces the one of that name.

    `accepts` is true for a valid entry; `remedy` ends the message for any other. Raises ValueError for a name that a
    file name cannot contain, and TypeError for an entry that is not accepted.
    """

    def __init__(self, name: str, accepts: Callable[[Any], bool], remedy: str, entries: Mapping[str, Any]):
        super().__init__()
        self.name, self.accepts, self.remedy = name, accepts, remedy
        for key, entry in entries.items():
            self[key] = entry

    def __setitem__(self, key: str, entry: Any) -> None:
        place = f"{self.name}[{key!r}]"
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", key):
            raise ValueError(f"{place}: names of files contain this name; use letters, digits and . _ + - only")
        if not self.accepts(entry):
            raise TypeError(f"{place}: got a {type(entry).__name__}; {self.remedy}")
        super().__setitem__(key, entry)

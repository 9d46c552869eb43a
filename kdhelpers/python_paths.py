"""Networks by Python path, `my_models:TinyNet` or `path/to/file.py:TinyNet`: only what the user gave is imported.

An import runs code. A path that a record or a sidecar holds is marked when it is read (`mark`), and a marked path never
counts as given. A pandas frame drops the mark: mark what you take out of one before you make a `Run` of it.
"""

import re
from typing import Any

LIBRARIES = ("torchvision", "timm")  # of these names a builder is taken, which a file may name
_given: set[str] = set()


class FromFile(str):
    """A Python path that a file holds."""

    __slots__ = ()


def is_python_path(name: object) -> bool:
    """Whether the text is a module or a Python file, a colon, and the name of a class or function in it."""
    place, _, attribute = name.rpartition(":") if isinstance(name, str) else ("", "", "")
    is_module = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", place) and place not in LIBRARIES
    return attribute.isidentifier() and bool(is_module or place.endswith(".py"))


def use_network(path: str) -> None:
    """Let this process import a network of your own: records and weights that name the path can then be loaded.

    `Run(model=...)`, `Run(teacher=...)`, `build_model` and `load_model(..., model=...)` do this for the path that you
    give them. Raises ValueError for another text, and for a path that comes from a file.
    """
    if not is_python_path(path):
        raise ValueError(f"network = {path}: is not a Python path; write my_models:TinyNet or path/to/file.py:TinyNet")
    if isinstance(path, FromFile):
        require_given(path)
    _given.add(str(path))


def given_networks() -> list[str]:
    """The Python paths that the user gave in this process, for the processes that it starts."""
    return sorted(_given)


def is_withheld(name: object) -> bool:
    """Whether the name is a Python path that the user has not given in this process."""
    return is_python_path(name) and name not in _given


def require_given(path: str, owner: str = "") -> None:
    """Raises ValueError that names the arguments to give, unless the user gave the path in this process.

    owner: what names the path, for the message.
    """
    if is_withheld(path):
        raise ValueError(
            f"model = {path}: {owner or 'a file'} names this code, and only code that you give is imported; if you "
            f"trust it, give model={str(path)!r} to Run or load_model, call use_network({str(path)!r}), or write "
            f"--network {path} on the command line"
        )


def mark(content: Any) -> Any:
    """The content of a JSON file with its Python paths marked, also in mappings and lists within it."""
    if isinstance(content, dict):
        return {key: mark(value) for key, value in content.items()}
    if isinstance(content, list):
        return [mark(value) for value in content]
    return FromFile(content) if isinstance(content, str) and ":" in content and is_python_path(content) else content

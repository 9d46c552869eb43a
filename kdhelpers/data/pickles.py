"""Reading pickles that hold arrays and plain containers, and nothing else: a pickle can run code, this one cannot."""

from __future__ import annotations

import codecs
import hashlib
import io
import pickle
from pathlib import Path
from typing import Any


def restricted_load(path: Path | str, md5: str | None = None) -> Any:
    """Load a pickle of numpy arrays, numbers, strings and plain containers (old Python 2 files too, as latin1).

    The file's `md5` is checked before any of it is parsed. Raises FileNotFoundError; ValueError for another md5, a
    damaged file, or a pickle that asks for any other class or function.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; put the file there or delete {path.parent} to download it again")
    content = path.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 and found != md5:
        raise ValueError(f"{path}: md5 is {found}, not {md5} (truncated or altered); delete it and download it again")
    try:
        return _Restricted(io.BytesIO(content), encoding="latin1").load()
    except _Forbidden:
        raise
    except Exception as error:  # a damaged pickle may fail in any way: IndexError, KeyError, MemoryError, ...
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: damaged pickle ({reason}); delete it and get it again") from error


class _Forbidden(ValueError):
    pass


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 spells bytes; the real `_codecs.encode` would reach every codec there is."""
    if codecs.lookup(encoding).name != "iso8859-1":
        raise _Forbidden(f"pickle asks for the codec {encoding!r}; only latin1 is allowed")
    return text.encode("latin1")


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        core = module.replace("numpy.core", "numpy._core")  # named so since numpy 2, but old files have the old name
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (core, name) in (
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
            ("numpy._core.numeric", "_frombuffer"),
        ):
            home = np._core if hasattr(np, "_core") else np.core
            return getattr(getattr(home, core.rsplit(".", 1)[1]), name)
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if module == "collections" and name == "OrderedDict":
            return dict
        if module in ("builtins", "__builtin__") and name in ("set", "frozenset", "bytearray", "complex"):
            return {"set": set, "frozenset": frozenset, "bytearray": bytearray, "complex": complex}[name]
        raise _Forbidden(
            f"pickle asks for {module}.{name}; only numpy arrays and plain containers are loaded from "
            "pickles, convert the file to .npz"
        )

"""Safe loading of pickles with arrays and plain containers: no code of the file runs.

`SafeUnpickler` records the pickle's values in placeholders. The arrays are then built here, from bytes that exist: a
forged dtype or array would make numpy's own functions follow pointers from the file. A malicious file can still waste
time and memory.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import math
import pickle
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdhelpers.weights.safe_pickle import Placeholder, SafeUnpickler


def restricted_load(path: Path | str, md5: str | None = None) -> Any:
    """Load a pickle of numpy arrays, numbers, strings and plain containers (old Python 2 files too, as latin1).

    The file's `md5` is checked before parsing. Raises FileNotFoundError; ValueError for another md5, a damaged file, or
    a pickle that refers to any other class or function.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; put the file there or delete {path.parent} to download it again")
    content = path.read_bytes()
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 and actual != md5:
        raise ValueError(f"{path}: md5 is {actual}, not {md5} (truncated or altered); delete it and download it again")
    try:
        return _rebuild(_Unpickler(io.BytesIO(content)).load(), {})
    except _UnsafePickle as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle may fail in any way: IndexError, KeyError, MemoryError, ...
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: is not a pickle, or is damaged ({reason}); download or save it again") from error


class _UnsafePickle(Exception):
    pass


class _Tuple(list):
    """Replaces a tuple, not hashable: hashing a deeply nested tuple ends the process."""


class _Unpickler(SafeUnpickler):
    def find_class(self, module: str, name: str) -> type:
        module = module.replace("numpy.core", "numpy._core").replace("__builtin__", "builtins")
        if (path := f"{module}.{name}") not in ALLOWED:
            raise _UnsafePickle(f"pickle refers to {_printable(path)}; save numpy arrays and plain containers only")
        return super().find_class(module, name)

    def load_tuple(self) -> None:
        items = self.pop_mark()
        self.append(_Tuple(items))

    def _gather(self, count: int) -> None:
        self.stack[-count:] = [_Tuple(self.stack[-count:])]

    dispatch = SafeUnpickler.dispatch | {
        pickle.TUPLE[0]: load_tuple,
        pickle.TUPLE1[0]: lambda self: self._gather(1),
        pickle.TUPLE2[0]: lambda self: self._gather(2),
        pickle.TUPLE3[0]: lambda self: self._gather(3),
    }


def _printable(text: str) -> str:
    """A name from the file, safe to print."""
    return text if text.isprintable() and len(text) <= 80 else f"{ascii(text[:80])}..."


def _rebuild(value: Any, memo: dict[int, Any]) -> Any:
    """`value` with arrays in place of the placeholders; a shared object is built once."""
    if id(value) not in memo:
        made = value
        if isinstance(value, dict):
            made = {_rebuild(key, memo): _rebuild(entry, memo) for key, entry in value.items()}
        elif isinstance(value, (list, set, frozenset)):
            kind = tuple if type(value) is _Tuple else type(value)
            made = kind(_rebuild(entry, memo) for entry in value)
        elif isinstance(value, Placeholder) and value.path in BUILDERS:
            made = BUILDERS[value.path](value, memo)
        elif isinstance(value, Placeholder | type):
            raise ValueError("a class or dtype replaces a value")
        memo[id(value)] = made
    return memo[id(value)]


def _saved_array(saved: Placeholder, memo: dict) -> np.ndarray:
    """Of numpy's `_reconstruct(ndarray, (0,), "b")`: the state has all values."""
    _version, shape, dtype, fortran, content = saved.state
    return _array(shape, dtype, fortran, _rebuild(content, memo))


def _buffer(saved: Placeholder, memo: dict) -> np.ndarray:
    """Of numpy's `_frombuffer(buffer, dtype, shape, order, axis_order)`, from protocol 5."""
    content, dtype, shape, order, axes = (*saved.args, None)[:5]
    array = _array(shape, dtype, order == "F", content)
    return array.transpose(axes) if order == "K" and axes else array


def _scalar(saved: Placeholder, memo: dict) -> Any:
    dtype, content = saved.args
    return _array((1,), dtype, False, _rebuild(content, memo))[0]


def _array(shape: Sequence[int], dtype: Placeholder, fortran: bool, content: Any) -> np.ndarray:
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("the shape of an array is invalid")
    kind, count = _dtype(dtype), math.prod(shape)
    if kind.hasobject:
        if not isinstance(content, list) or len(content) != count:
            raise ValueError("an array of objects needs a list of the same length")
        flat = np.empty(count, dtype=object)
        flat[:] = content
        return flat.reshape(shape)  # the list is in C order, also for a Fortran array
    content = content.encode("latin1") if isinstance(content, str) else content  # Python 2 saves text
    if not isinstance(content, (bytes, bytearray)) or len(content) != count * kind.itemsize:
        raise ValueError("the bytes of an array do not fit its shape")
    flat = np.frombuffer(content, kind).copy() if content else np.empty(0, kind)
    if kind.kind == "U" and len(flat) and flat.view(kind.byteorder + "u4").max() > sys.maxunicode:
        raise ValueError("a text contains an invalid character")
    return flat.reshape(shape, order="F" if fortran else "C")


def _dtype(saved: Placeholder) -> np.dtype:
    """Numbers, booleans, texts of a fixed size, or objects; of the state, only the byte order is used."""
    code = saved.args[0]
    if not re.fullmatch(r"b1|[iuf][1248]|f16|[SU]\d{1,6}|O8?", code):
        raise _UnsafePickle(f"pickle has an array of dtype {code!r}; save numbers and texts only")
    return np.dtype((">" if saved.state and saved.state[1] == ">" else "<") + code)


def _bytes(saved: Placeholder, _memo: dict) -> bytes:
    """bytes or bytearray of given content. A number would allocate as many zeros, another codec would run its code."""
    content, encoding = *saved.args, *(b"", "latin1")[len(saved.args) :]
    if not isinstance(content, (bytes, str)):
        raise _UnsafePickle(f"pickle makes bytes from {type(content).__name__}")
    if codecs.lookup(encoding).name != "iso8859-1":
        raise _UnsafePickle(f"pickle refers to the codec {encoding!r}; save it with latin1")
    return content.encode("latin1") if isinstance(content, str) else content


BUILDERS = {
    "numpy._core.multiarray._reconstruct": _saved_array,
    "numpy._core.numeric._frombuffer": _buffer,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _bytes,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.complex": lambda saved, memo: complex(*saved.args),
    "builtins.set": lambda saved, memo: set(_rebuild(*saved.args, memo)),
    "builtins.frozenset": lambda saved, memo: frozenset(_rebuild(*saved.args, memo)),
}
ALLOWED = {*BUILDERS, "numpy.dtype", "numpy.ndarray", "collections.OrderedDict"}

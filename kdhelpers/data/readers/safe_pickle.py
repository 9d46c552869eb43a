"""Safe loading of pickles with arrays and plain containers: no code of the file runs.

A pickle calls only what `find_class` returns, and changes only objects made from that. No class of numpy is among
them, because a forged dtype or array makes numpy follow pointers from the file. Placeholders record the pickle's
values instead; the arrays are then built here, from bytes that exist. A malicious file can still waste time and memory.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import math
import pickle
import re
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np


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
        return _rebuild(_SafeUnpickler(io.BytesIO(content), encoding="latin1").load(), {})
    except _UnsafePickle as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle may fail in any way: IndexError, KeyError, MemoryError, ...
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: is not a pickle, or is damaged ({reason}); download or save it again") from error


class _UnsafePickle(Exception):
    pass


class _Dtype:
    """Placeholder of numpy.dtype: numbers, booleans, texts of a fixed size, or objects."""

    order = "|"

    def __init__(self, code: str, *_flags):
        if not re.fullmatch(r"b1|[iuf][1248]|f16|[SU]\d{1,6}|O8?", code):
            raise _UnsafePickle(f"pickle has an array of dtype {code!r}; save numbers and texts only")
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        self.order = "|" if self.code[0] in "bSO" or self.code[1:] == "1" else {">": ">"}.get(state[1], "<")


class _Array:
    """Placeholder of numpy's `_reconstruct(ndarray, (0,), "b")`; BUILD sets its state."""

    def __init__(self, *_arguments):
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        _version, *fields = state
        self.state = tuple(fields)  # shape, dtype, whether in Fortran order, content

    def make(self, memo: dict) -> np.ndarray:
        import numpy as np

        shape, dtype, fortran, raw = self.state
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("the shape of an array is invalid")
        if dtype.code[0] == "O":
            if not isinstance(raw, list) or len(raw) != math.prod(shape):
                raise ValueError("an array of objects needs a list of the same length")
            flat = np.empty(len(raw), dtype=object)
            flat[:] = [_rebuild(value, memo) for value in raw]
            return flat.reshape(shape)  # the list is in C order, also for a Fortran array
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 saves text
        return _flat_array(raw, np.dtype(dtype.order + dtype.code), shape).reshape(shape, order="F" if fortran else "C")


def _flat_array(raw: bytes, kind: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """The flat array of `shape`, from its bytes."""
    import numpy as np

    if not isinstance(raw, (bytes, bytearray)) or len(raw) != math.prod(shape) * kind.itemsize:
        raise ValueError("the bytes of an array do not fit its shape")
    flat = np.frombuffer(raw, kind).copy() if raw else np.empty(0, kind)
    if kind.kind == "U" and len(flat) and flat.view(kind.byteorder + "u4").max() > sys.maxunicode:
        raise ValueError("a text contains an invalid character")
    return flat


class _Buffer(_Array):
    """Placeholder of numpy's `_frombuffer(buffer, dtype, shape, order, axis_order)`, from protocol 5."""

    def __init__(self, raw: bytes, dtype: _Dtype, shape: Sequence[int], order: str, axis_order: Any = None):
        self.state = (shape, dtype, order == "F", raw)
        self.axis_order = axis_order if order == "K" else None

    def make(self, memo: dict) -> np.ndarray:
        array = super().make(memo)
        return array if self.axis_order is None else array.transpose(self.axis_order)


class _Tuple(list):
    """Placeholder of a tuple, not hashable: hashing a deeply nested tuple ends the process."""


class _Scalar(_Array):
    """Placeholder of numpy's `scalar(dtype, bytes)`."""

    def __init__(self, dtype: _Dtype, raw: bytes):
        self.state = ((1,), dtype, False, raw)

    def make(self, memo: dict) -> Any:
        return super().make(memo)[0]


def _rebuild(value: Any, memo: dict[int, Any]) -> Any:
    """`value` with arrays in place of the placeholders; a shared object is built once."""
    if id(value) not in memo:
        made = value
        if isinstance(value, dict):
            made = {_rebuild(key, memo): _rebuild(entry, memo) for key, entry in value.items()}
        elif isinstance(value, (list, set, frozenset)):
            kind = tuple if type(value) is _Tuple else type(value)
            made = kind(_rebuild(entry, memo) for entry in value)
        elif isinstance(value, _Array):
            made = value.make(memo)
        elif isinstance(value, _Dtype) or callable(value):
            raise ValueError("a class or dtype replaces a value")
        memo[id(value)] = made
    return memo[id(value)]


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """The bytes of protocol 2. The real `_codecs.encode` would give access to every codec."""
    if codecs.lookup(encoding).name != "iso8859-1":
        raise _UnsafePickle(f"pickle refers to the codec {encoding!r}; save it with latin1")
    return text.encode("latin1")


def _bytes(content: bytes | str = b"", encoding: str = "latin1") -> bytes:
    """bytes or bytearray of given content; a number would allocate as many zeros."""
    if not isinstance(content, (bytes, str)):
        raise _UnsafePickle(f"pickle makes bytes from {type(content).__name__}")
    return _encode_latin1(content, encoding) if isinstance(content, str) else content


def _printable(text: str) -> str:
    """A name from the file, safe to print."""
    return text if text.isprintable() and len(text) <= 80 else f"{ascii(text[:80])}..."


class _SafeUnpickler(pickle._Unpickler):  # the C version allocates billions of memos for one damaged byte
    dispatch: ClassVar[dict[int, Callable]] = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        content = self.read(size)  # the original allocates the size that the file claims
        if len(content) < size:
            raise EOFError("the file is truncated")
        self.append(bytearray(content))

    def load_build(self) -> None:
        """The original sets attributes of any object, even of the functions of this module."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Dtype, _Array)):
            raise _UnsafePickle("pickle changes an object that it did not make")
        self.stack[-1].__setstate__(state)

    def load_tuple(self) -> None:
        items = self.pop_mark()
        self.append(_Tuple(items))

    def _gather(self, count: int) -> None:
        self.stack[-count:] = [_Tuple(self.stack[-count:])]

    dispatch |= {
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.BUILD[0]: load_build,
        pickle.TUPLE[0]: load_tuple,
        pickle.TUPLE1[0]: lambda self: self._gather(1),
        pickle.TUPLE2[0]: lambda self: self._gather(2),
        pickle.TUPLE3[0]: lambda self: self._gather(3),
    }

    def get_extension(self, code: int) -> Any:
        raise _UnsafePickle(f"pickle refers to the registered extension {code}")

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}".replace("numpy.core", "numpy._core").replace("__builtin__", "builtins")
        if path not in ALLOWED:
            requested = _printable(f"{module}.{name}")
            raise _UnsafePickle(f"pickle refers to {requested}; save numpy arrays and plain containers only")
        return ALLOWED[path]


ALLOWED = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": "numpy.ndarray",  # an argument of `_reconstruct`; not callable
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy._core.numeric._frombuffer": _Buffer,
    "numpy._core.multiarray.scalar": _Scalar,
    "_codecs.encode": _encode_latin1,
    "collections.OrderedDict": dict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
}

"""Reading pickles that hold arrays and plain containers, and nothing else: a pickle can run code, this one cannot.

All that a pickle can call is what `find_class` gives it, and all that it can alter what it has made of that. No class
of numpy's is among it, as a forged dtype or array makes numpy follow pointers of the file's choice: stand-ins note what
the pickle says, and the arrays are made of it afterwards, here, of bytes that are there. A file made for it can still
waste time and memory, as any pickle can.
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
        return _real(_Restricted(io.BytesIO(content), encoding="latin1").load(), {})
    except _Forbidden as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle may fail in any way: IndexError, KeyError, MemoryError, ...
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: no pickle, or a damaged one ({reason}); get it again, or write it anew") from error


class _Forbidden(Exception):
    pass


class _Dtype:
    """numpy.dtype: numbers, booleans and texts of a fixed size, or objects."""

    order = "|"

    def __init__(self, code: str, *_flags):
        if not re.fullmatch(r"b1|[iuf][1248]|f16|[SU]\d{1,6}|O8?", code):
            raise _Forbidden(f"pickle holds an array of dtype {code!r}; only numbers and texts are loaded from pickles")
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        self.order = "|" if self.code[0] in "bSO" or self.code[1:] == "1" else {">": ">"}.get(state[1], "<")


class _Array:
    """numpy's `_reconstruct(ndarray, (0,), "b")`, which BUILD fills."""

    def __init__(self, *_arguments):
        self.noted: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        _version, *noted = state
        self.noted = tuple(noted)  # shape, dtype, whether in Fortran's order, content

    def make(self, memo: dict) -> np.ndarray:
        import numpy as np

        shape, dtype, fortran, raw = self.noted
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("the shape of an array makes no sense")
        if dtype.code[0] == "O":
            if not isinstance(raw, list) or len(raw) != math.prod(shape):
                raise ValueError("an array of objects has no list of as many")
            flat = np.empty(len(raw), dtype=object)
            flat[:] = [_real(value, memo) for value in raw]
            return flat.reshape(shape)  # the list is in C's order, whatever the array's is
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2's are texts
        return _numbers(raw, np.dtype(dtype.order + dtype.code), shape).reshape(shape, order="F" if fortran else "C")


def _numbers(raw: bytes, kind: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """The numbers or texts of an array of that shape, one after the other."""
    import numpy as np

    if not isinstance(raw, (bytes, bytearray)) or len(raw) != math.prod(shape) * kind.itemsize:
        raise ValueError("an array has more or fewer bytes than its shape says")
    flat = np.frombuffer(raw, kind).copy() if raw else np.empty(0, kind)
    if kind.kind == "U" and len(flat) and flat.view(kind.byteorder + "u4").max() > sys.maxunicode:
        raise ValueError("a text holds what is no character")
    return flat


class _Buffer(_Array):
    """numpy's `_frombuffer(buffer, dtype, shape, order, axis_order)`, which protocol 5 calls."""

    def __init__(self, raw: bytes, dtype: _Dtype, shape: Sequence[int], order: str, axis_order: Any = None):
        self.noted = (shape, dtype, order == "F", raw)
        self.axis_order = axis_order if order == "K" else None

    def make(self, memo: dict) -> np.ndarray:
        array = super().make(memo)
        return array if self.axis_order is None else array.transpose(self.axis_order)


class _Tuple(list):
    """A tuple of the pickle, which cannot be a key: to hash one that is nested deep enough ends the process."""


class _Scalar(_Array):
    """numpy's `scalar(dtype, bytes)`."""

    def __init__(self, dtype: _Dtype, raw: bytes):
        self.noted = ((1,), dtype, False, raw)

    def make(self, memo: dict) -> Any:
        return super().make(memo)[0]


def _real(value: Any, memo: dict[int, Any]) -> Any:
    """`value` with arrays in place of the stand-ins; what stands in several places is made once."""
    if id(value) not in memo:
        made = value
        if isinstance(value, dict):
            made = {_real(key, memo): _real(entry, memo) for key, entry in value.items()}
        elif isinstance(value, (list, set, frozenset)):
            kind = tuple if type(value) is _Tuple else type(value)
            made = kind(_real(entry, memo) for entry in value)
        elif isinstance(value, _Array):
            made = value.make(memo)
        elif isinstance(value, _Dtype) or callable(value):
            raise ValueError("a class or dtype stands in place of a value")
        memo[id(value)] = made
    return memo[id(value)]


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 spells bytes; the real `_codecs.encode` would reach every codec there is."""
    if codecs.lookup(encoding).name != "iso8859-1":
        raise _Forbidden(f"pickle asks for the codec {encoding!r}; only latin1 is allowed")
    return text.encode("latin1")


def _bytes(content: bytes | str = b"", encoding: str = "latin1") -> bytes:
    """bytes or bytearray of what is there: of a number both would make as many zeros."""
    if not isinstance(content, (bytes, str)):
        raise _Forbidden(f"pickle makes bytes of {type(content).__name__}")
    return _encode_latin1(content, encoding) if isinstance(content, str) else content


def _told(text: str) -> str:
    """A name out of the file as a message may show it."""
    return text if text.isprintable() and len(text) <= 80 else f"{ascii(text[:80])}..."


class _Restricted(pickle._Unpickler):  # in C it makes room for billions of memos where one damaged byte says so
    dispatch: ClassVar[dict[int, Callable]] = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        content = self.read(size)  # the original makes room for all that the file says it has
        if len(content) < size:
            raise EOFError("the file ends too early")
        self.append(bytearray(content))

    def load_build(self) -> None:
        """The original sets attributes of whatever is there: those of our functions, too, for good."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Dtype, _Array)):
            raise _Forbidden("pickle alters what it has not made")
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
        raise _Forbidden(f"pickle asks for the registered extension {code}")

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}".replace("numpy.core", "numpy._core").replace("__builtin__", "builtins")
        if path not in KNOWN:
            asked = _told(f"{module}.{name}")
            raise _Forbidden(
                f"pickle asks for {asked}; only numpy arrays and plain containers are loaded from pickles, write it "
                "anew of these"
            )
        return KNOWN[path]


KNOWN = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": "numpy.ndarray",  # an argument of the next; it cannot be called
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

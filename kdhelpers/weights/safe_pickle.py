"""Reads the tensors of a torch file whose pickle also names classes or functions, without importing or calling one.

`torch.load(weights_only=True)` refuses such a file as a whole, although many published checkpoints hold a numpy scalar
or an argparse.Namespace. Its `safe_globals` does not help: it blocks every name of `os` and `sys`, dict subclasses,
pickled networks in files from before torch 1.6, and pickle protocols above 2. This reader is safe for two reasons:

- A pickle can call, build or alter only the results of `find_class` and `persistent_load`. Here `find_class` turns each
  name, torch's own too, into a new class that stores its arguments (`Placeholder`), or into a plain dict.
- Tensors are built after the pickle is read, from (storage, offset, size, stride). These are checked in Python's
  integers, and a tensor is never larger than its storage.

A malicious file can still waste time and memory, or end the process with a pickle nested a million times deep.

Formats: a zip with `data.pkl` and a member per storage; before torch 1.6, consecutive pickles, then the storages, each
after its length.
"""

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6
DICTS = ("collections.OrderedDict", "collections.defaultdict")
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
REBUILDERS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor", REBUILD_PARAMETER)
NUMBERS = "Double Float Half BFloat16 Long Int Short Bool"
DTYPES = {f"torch.{name}Storage": getattr(torch, name.lower()) for name in NUMBERS.split()}
DTYPES |= {"torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8}


class Unreadable(Exception):
    """The file is damaged or has an unknown format."""


class Placeholder:
    """Replaces a class or function that the pickle names: stores the arguments of the call, and the state set later."""

    path = ""  # module.name, as in the pickle
    args: Sequence = ()
    state: Any = ()

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self.args = args
        return self

    def append(self, *args) -> None:
        pass

    extend = add = __setitem__ = append


class SavedTensor(Placeholder):
    """Replaces a call of a torch function that rebuilds a tensor."""


class _Dict(dict):
    def __init__(self, *args):
        super().__init__(args[0] if args and isinstance(args[0], list) else ())  # Python 2 puts the items here


class _Storage(NamedTuple):
    key: str
    dtype: torch.dtype
    count: int


class SafeCheckpoint:
    """tree: the content, made of plain containers, numbers, strings and placeholders; names: the classes and functions
    in the pickle, except dicts and parts of tensors; `tensor` builds the tensor of a `SavedTensor`.

    Raises Unreadable; FileNotFoundError.
    """

    def __init__(self, path: Path):
        content = path.read_bytes()
        try:
            read = _read_zip if content.startswith(b"PK") else _read_legacy
            unpickler, self.tree, self._bytes = read(io.BytesIO(content))
        except Exception as error:  # a damaged pickle may fail in any way: IndexError, KeyError, MemoryError, ...
            raise Unreadable(f"{path}: {error!r}") from error
        self.names = sorted(unpickler.placeholders.keys() - {*REBUILDERS, *DTYPES})

    def tensor(self, saved: SavedTensor) -> Tensor:
        try:
            while saved.path == REBUILD_PARAMETER:
                saved = saved.args[0]
            storage, offset, size, stride = saved.args[:4]
            return _view(self._bytes[storage.key], storage, offset, size, stride).clone()
        except Exception as error:  # arguments of any kind
            raise Unreadable(f"the arguments of a tensor are invalid: {error!r}") from error


def _view(content: bytes, storage: _Storage, offset: int, size: tuple, stride: tuple) -> Tensor:
    if not all(type(number) is int for number in (offset, *size, *stride)):
        raise TypeError("offset, size and stride must be whole numbers")
    count = math.prod(size)
    if not count:
        return torch.empty(size, dtype=storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min(offset, *size, *stride, 0) < 0 or max(last + 1, count) > storage.count:
        raise ValueError(f"size {size}, stride {stride}, offset {offset} in a storage of {storage.count}")
    if len(content) != storage.count * storage.dtype.itemsize:
        raise ValueError(f"a storage of {storage.count} has {len(content)} bytes")
    return torch.frombuffer(bytearray(content), dtype=storage.dtype).as_strided(size, stride, offset)


class SafeUnpickler(pickle._Unpickler):  # the C version allocates billions of memo entries after one damaged byte
    """Loads plain containers, numbers, strings and placeholders; `placeholders` has every name in the pickle."""

    dispatch: ClassVar[dict[int, Callable]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BufferedIOBase):
        super().__init__(file, encoding="latin1")  # decodes every Python 2 string
        self.placeholders: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> type:
        """A new class labelled with the name; nothing is looked up."""
        path = f"{module}.{name}"
        if path in DICTS:
            return _Dict
        base = SavedTensor if path in REBUILDERS else Placeholder
        return self.placeholders.setdefault(path, type(name, (base,), {"path": path}))

    def get_extension(self, code: int) -> None:
        raise ValueError(f"the pickle refers to the registered extension {code}")

    def load_build(self) -> None:
        """The original sets attributes of any object, even of a class."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Placeholder | _Dict):
            raise ValueError("the pickle changes an object that it did not make")
        self.stack[-1].state = state

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        content = self.read(size)  # the original allocates the size that the file claims
        if len(content) < size:
            raise EOFError("the file is truncated")
        self.append(bytearray(content))

    dispatch |= {pickle.BUILD[0]: load_build, pickle.BYTEARRAY8[0]: load_bytearray8}


class _Unpickler(SafeUnpickler):
    def __init__(self, file: io.BufferedIOBase):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, saved: tuple) -> Any:
        if saved[0] == "module":  # the class of a pickled network, and its source code
            return saved[1]
        _, kind, key, _, count, *view = saved
        if saved[0] != "storage" or not isinstance(count, int) or view not in ([], [None]):
            raise ValueError("unknown kind of storage")
        storage = _Storage(key, DTYPES[kind.path], count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} has two dtypes or sizes")
        return storage


def _read_zip(file: io.BytesIO) -> tuple[_Unpickler, Any, dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = name.removesuffix("data.pkl")
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("compressed, as torch never does: it may be of any size")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("big-endian")
        unpickler = _Unpickler(io.BytesIO(archive.read(name)))
        tree = unpickler.load()
        return unpickler, tree, {key: archive.read(f"{folder}data/{key}") for key in unpickler.storages}


def _read_legacy(file: io.BytesIO) -> tuple[_Unpickler, Any, dict[str, bytes]]:
    magic, protocol, system = (_Unpickler(file).load() for _ in range(3))
    if (magic, protocol, system["little_endian"]) != (MAGIC, PROTOCOL, True):
        raise ValueError("not a torch file, or big-endian")
    unpickler = _Unpickler(file)
    tree, content = unpickler.load(), {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        storage = unpickler.storages[key]
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} elements, not {storage.count}")
        content[key] = file.read(size := count * storage.dtype.itemsize)
        if len(content[key]) != size:  # also of a storage that no tensor uses
            raise ValueError(f"storage {key} has {len(content[key])} of {size} bytes")
    return unpickler, tree, content

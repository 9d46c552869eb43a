"""The tensors of a torch file whose pickle also names classes or functions: none of them is imported or called.

`torch.load(weights_only=True)` refuses such a file whole. Checkpoints often are such: the CRD benchmark's hold the best
accuracy as a numpy scalar, others their argparse.Namespace. Why it is safe to read them here:

- All that a pickle can call, build or alter is what `find_class` and `persistent_load` give it. Here `find_class` looks
  nothing up: every name, torch's own too, becomes a class made on the spot that notes the arguments and does nothing
  (`Placeholder`), or a plain dict for the dicts that torch files are made of. `os.system("...")` becomes two strings.
- What is left is numbers, strings, containers and notes. From the notes on a tensor (storage, offset, size, stride)
  the tensor is made after the pickle is read, here, of bytes that exist: sizes are checked in Python's whole numbers,
  and a tensor is never larger than its storage.

A file made for it can still waste time and memory, as any pickle can, or end the process, nested a million times deep.

So no numpy class needs to be let in for a number that nobody reads. The formats: a zip with `data.pkl` and one member
per storage; before torch 1.6, pickles in a row, then the storages, each behind its length.
"""

import io
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6
DICTS = ("collections.OrderedDict", "collections.defaultdict")
REBUILDERS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Unreadable(Exception):
    """The file is damaged or of a format that is not known here."""


class Placeholder:
    """For whatever the pickle names: it notes the arguments it was called with, and nothing it is told later."""

    path = ""  # module.name, as the pickle says it

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self.args = args
        return self

    # defined, as the unpickler would otherwise write into __dict__ or call setattr, on the class too
    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, *args) -> None:
        pass

    extend = add = __setitem__ = append


class SavedTensor(Placeholder):
    """Stands in for a call of torch's functions that rebuild a tensor."""


class _Dict(dict):
    def __init__(self, *args):
        super().__init__(args[0] if args and isinstance(args[0], list) else ())  # Python 2 puts the items here

    def __setstate__(self, state: Any) -> None:
        pass


class _Storage(NamedTuple):
    key: str
    dtype: torch.dtype
    count: int


class SafeCheckpoint:
    """tree: the file's content, of plain containers, numbers, strings and stand-ins; names: what it named besides
    dicts and what tensors are made of; `tensor` builds what a `SavedTensor` of the tree stands for.

    Raises Unreadable; FileNotFoundError.
    """

    def __init__(self, path: Path):
        content = io.BytesIO(path.read_bytes())
        try:
            read = _read_zip if content.getvalue().startswith(b"PK") else _read_legacy
            unpickler, self.tree, self._bytes = read(content)
        except Exception as error:  # a damaged pickle may fail in any way: IndexError, KeyError, MemoryError, ...
            raise Unreadable(f"{path}: {error!r}") from error
        self.names = sorted(name for name, kind in unpickler.named.items() if not _makes_tensors(kind))

    def tensor(self, saved: SavedTensor) -> Tensor:
        try:
            while saved.path == REBUILD_PARAMETER:
                saved = saved.args[0]
            storage, offset, size, stride = saved.args[:4]
            return _view(self._bytes[storage.key], storage, offset, size, stride).clone()
        except Exception as error:  # arguments of any kind
            raise Unreadable(f"a tensor's notes make no sense: {error!r}") from error


def _makes_tensors(kind: type[Placeholder]) -> bool:
    return issubclass(kind, SavedTensor) or kind.path.removeprefix("torch.") in DTYPES


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


class _Unpickler(pickle._Unpickler):  # in C it makes room for billions of memos where one damaged byte says so
    def __init__(self, file: io.BufferedIOBase):
        super().__init__(file, encoding="latin1")  # no Python 2 string fails
        self.named: dict[str, type] = {}
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> type:
        """Finds nothing: makes a class that has the name for a label."""
        path = f"{module}.{name}"
        if path in DICTS:
            return _Dict
        kind = SavedTensor if path in REBUILDERS or path == REBUILD_PARAMETER else Placeholder
        return self.named.setdefault(path, type(name, (kind,), {"path": path}))

    def persistent_load(self, saved: tuple) -> Any:
        if saved[0] == "module":  # the class of a pickled network, and its source code
            return saved[1]
        _, kind, key, _, count, *view = saved
        if saved[0] != "storage" or not isinstance(count, int) or view not in ([], [None]):
            raise ValueError("unknown kind of storage")
        storage = _Storage(key, DTYPES[kind.path.removeprefix("torch.")], count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} is said to be of two kinds")
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
    file.seek(0)
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
        if len(content[key]) != size:  # of a storage that nobody asks for, too
            raise ValueError(f"storage {key} has {len(content[key])} of {size} bytes")
    return unpickler, tree, content

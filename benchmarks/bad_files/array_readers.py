"""The readers of arrays: pickles, npz, parquet."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

from benchmarks.bad_files.child import Reader
from benchmarks.bad_files.image_readers import COUNT, bomb, check_pets, load_pets, some_pixels
from benchmarks.bad_files.pickles import forge_pickle
from benchmarks.bad_files.values import forged
from kdhelpers.data import restricted_load
from kdhelpers.data.readers.unlabelled import read_unlabelled


def _pickles(root: Path) -> Sequence[Path]:
    """A batch of CIFAR's and a file of unlabelled images, in several protocols."""
    paths = []
    for protocol in (0, 2, 4, 5):
        batch = {
            b"data": some_pixels(0).reshape(COUNT, -1),
            b"labels": list(range(COUNT)),
            b"batch_label": b"batch 1 of 5",
        }
        for name, content in (("batch", batch), ("unlabelled", {"data": some_pixels(1), "ids": np.arange(COUNT)})):
            paths.append(root / f"{name}{protocol}.pkl")
            paths[-1].write_bytes(pickle.dumps(content, protocol))
    return paths


def _read_pickles(root: Path, path: Path) -> None:
    if path.name.startswith("batch"):
        restricted_load(path)
    else:
        read_unlabelled(str(path))


def _npz(root: Path) -> Sequence[Path]:
    folder = root / "data" / "pets"
    folder.mkdir()
    for seed, name in enumerate(("train", "test")):
        names = {"class_names": np.array(["cat", "dog"])} if name == "train" else {}
        np.savez_compressed(folder / f"{name}.npz", images=some_pixels(seed), labels=np.arange(COUNT) % 2, **names)
    return [folder / "train.npz", folder / "test.npz"]


def _forge_npz(random: Random, path: Path, content: bytes) -> bytes:
    """Other arrays, a forged header of one, a bomb of zeros, a member of another name."""
    with np.load(io.BytesIO(content)) as arrays:
        members = {name: arrays[name] for name in arrays}
    kind, name = random.randrange(4), random.choice(list(members))
    if random.random() < 0.05:
        return _npz_bomb(name)
    stream = io.BytesIO()
    if kind == 0:
        members[name] = random.choice(_ARRAYS)
        np.savez_compressed(stream, **members)
        return stream.getvalue()
    with zipfile.ZipFile(stream, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for member, array in members.items():
            inner = io.BytesIO()
            np.save(inner, array)
            text = inner.getvalue()
            if member == name and kind == 1:
                text = random.choice(_HEADERS)(array)
            elif member == name and kind == 2:
                shape = random.choice(((700_000_000,), (4000, 256, 256, 3), (60_000_000, 3)))
                text = _header("|u1", shape) + bytes(random.choice((0, 1000)))
            archive.writestr(
                random.choice((f"{member}.npy", f"../../outside/{member}.npy", member))
                if kind == 3
                else f"{member}.npy",
                text,
            )
    return stream.getvalue()


@cache
def _npz_bomb(name: str) -> bytes:
    """Zeros of which a thousandth is stored."""
    stream = io.BytesIO()
    np.savez_compressed(
        stream, **{"images": some_pixels(0), "labels": np.arange(COUNT) % 2, name: np.zeros((50 << 20, 3), np.uint8)}
    )
    return stream.getvalue()


def _header(code: str, shape: object, order: str = "False") -> bytes:
    text = f"{{'descr': {code!r}, 'fortran_order': {order}, 'shape': {shape!r}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) % 65536) + text


_HEADERS: list[Callable[[np.ndarray], bytes]] = [
    lambda array: _header("<i8", (2**40,)),
    lambda array: _header("|u1", (2**62, 2**62)),
    lambda array: _header("|u1", (-1,)) + bytes(9),
    lambda array: _header("|O", array.shape) + pickle.dumps(array.tolist()),
    lambda array: _header("<U2000000000", (1,)),
    lambda array: _header("V0", (2**40,)),
    lambda array: _header("|u1", (0, 2**50, 8, 3)),
    lambda array: _header("x", (1,)),
    lambda array: _header("|u1", "[" * 5000),
    lambda array: b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
    lambda array: b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{",
    lambda array: b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"{'descr': " + b"[" * 4000 + b"]" * 4000 + b"}",
    lambda array: (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 60) + b"__import__('os').system('touch kd_canary')".ljust(60)
    ),
]
_ARRAYS = [
    np.zeros(0), np.zeros((0, 8, 8, 3), np.uint8), np.zeros((12, 0, 0, 3), np.uint8), np.zeros((12, 8, 8, 3)),
    np.full((12, 8, 8, 3), np.nan), np.array(5),
    np.zeros((12, 3, 8, 8), np.uint8), np.zeros((12, 8, 8), np.uint8), np.zeros((12, 5, 9, 3), np.uint8),
    np.zeros((12, 100000, 1, 3), np.uint8),
    np.arange(12), np.arange(12)[::-1], np.arange(12) * 10**15, -np.arange(12), np.arange(12).astype(">i4"),
    np.full(12, 2**63, np.uint64), np.full(12, 2**62),
    np.zeros(12), np.zeros(12, bool), np.zeros(12, complex), np.array(["cat"] * 12), np.array(["a\0b", "x"]),
    np.array(["\x1b[2J", "<script>alert(1)</script>"]),
    np.array(["../../outside/x", "/etc/passwd"]), np.array([["cat", "dog"]]), np.array([b"cat", b"dog"]),
    np.array(["cat", "cat"]), np.array(["x" * 50000, "y"]),
    np.array(["\u202ecat", "=cmd()"]), np.array([1, 2]), np.array([0.5, np.nan]), np.array([], "U1"), np.array(["",
    ""]), np.zeros(12, [("a", "i4")]),
    np.array(["2001-01-01"] * 12, "M8[D]"), np.array([1] * 12, "m8[s]"), np.zeros(12, "V8"), np.zeros((12, 1)),
    np.zeros((12, 12), int), np.zeros(12, np.float16),
    np.array(["1" * 400] * 12), np.array(["9" * 5000, "1"]), np.array("cat"), np.zeros((2,) * 12, np.uint8),
]  # fmt: skip


def _parquet(root: Path) -> Sequence[Path]:
    folder = root / "data" / "pets"
    folder.mkdir()
    for seed, name in enumerate(("train", "test")):
        parquet.write_table(_table(_images(seed)), folder / f"{name}.parquet")
    return [folder / "train.parquet", folder / "test.parquet"]


def _images(seed: int) -> list[dict]:
    cells = []
    for pixels in some_pixels(seed):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        cells.append({"bytes": stream.getvalue(), "path": None})
    return cells


def _table(images: object, labels: object = None, names: object = None, **more: object) -> pyarrow.Table:
    labels = [number % 2 for number in range(COUNT)] if labels is None else labels
    info = {
        "info": {"features": {"label": {"names": ["cat", "dog"] if names is None else names, "_type": "ClassLabel"}}}
    }
    table = pyarrow.table({"image": images, "label": labels, **more})
    return table.replace_schema_metadata({"huggingface": json.dumps(info)})


def _forge_parquet(random: Random, path: Path, content: bytes) -> bytes:
    """Other columns, or other metadata."""
    table, stream = parquet.read_table(io.BytesIO(content)), io.BytesIO()
    cells = table["image"].to_pylist()
    kind = random.randrange(3)
    if kind == 0:
        info = forged(random, json.loads(table.schema.metadata[b"huggingface"]))
        text = random.choice((json.dumps(info), json.dumps(info)[:-2], "[" * 100_000, "null", "\0")).encode(
            "utf-8", "replace"
        )
        table = table.replace_schema_metadata({"huggingface": text})
    else:
        column = random.choice(_COLUMNS)
        cell = random.choice((b"", b"x", None, b"GIF89a" + bytes(20), bomb("PNG"), bomb("BMP")))
        cells[random.randrange(COUNT)] = random.choice(
            ({"bytes": cell, "path": None}, {"bytes": None, "path": "/etc/passwd"})
        )
        try:
            table = _table(
                cells if kind == 1 else column, column if kind == 1 else None, coarse_label=random.choice(_COLUMNS)
            )
        except (pyarrow.ArrowException, OverflowError, TypeError):
            return content[: random.randrange(len(content))]
    parquet.write_table(table, stream, compression=random.choice(("snappy", "gzip", "none")))
    return stream.getvalue()


_COLUMNS = [
    [0] * COUNT, [1] * COUNT, [-1] * COUNT, [None] * COUNT, [0.5] * COUNT, [True] * COUNT, ["cat", "dog"] * 6,
    ["<script>", "\x1b[2J"] * 6, ["a\0b", ""] * 6,
    ["../../outside/x", "/etc"] * 6, [b"a", b"b"] * 6, [[1], [2]] * 6, [{"a": 1}] * COUNT, [2**62, 0] * 6, [10**15,
    0] * 6, list(range(COUNT)),
    [{"bytes": 5, "path": None}] * COUNT, [{"path": "../../outside/secret.png"}] * COUNT, [{"bytes": None,
    "path": "../../outside/secret.png"}] * COUNT,
    pyarrow.array([0, 1] * 6, pyarrow.uint64()), pyarrow.array([2**63, 1] * 6, pyarrow.uint64()), pyarrow.array(["a",
    "b"] * 6).dictionary_encode(),
    pyarrow.array([1, 2] * 6, pyarrow.date32()), pyarrow.array([0, 1] * 6, pyarrow.int8()),
    pyarrow.array(["x" * 100_000, "y"] * 6), pyarrow.nulls(COUNT),
    pyarrow.array([0, None] * 6, pyarrow.int64()), pyarrow.array(["\u202ex", "=1+1"] * 6, pyarrow.large_string()),
    pyarrow.array([b"x"] * COUNT, pyarrow.large_binary()),
]  # fmt: skip


READERS = (
    Reader("pickles (CIFAR, unlabelled)", _pickles, _read_pickles, forge_pickle),
    Reader("npz", _npz, load_pets, _forge_npz),
    Reader("npz, checked", _npz, check_pets, _forge_npz),
    Reader("parquet", _parquet, load_pets, _forge_parquet),
    Reader("parquet, checked", _parquet, check_pets, _forge_parquet),
)

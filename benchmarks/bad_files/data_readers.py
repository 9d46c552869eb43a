"""The readers of data sets: pickles, npz, parquet, images, class folders, the cache of decoded images, archives."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

from benchmarks.bad_files.child import Reader
from benchmarks.bad_files.pickles import forge_pickle
from benchmarks.bad_files.values import EXTREMES, forged
from kdhelpers import load_data
from kdhelpers.data import restricted_load
from kdhelpers.data.readers.download import unpack
from kdhelpers.data.readers.unlabelled import read_unlabelled

SIDE, COUNT = 8, 12


def _pixels(seed: int, count: int = COUNT) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def _pickles(root: Path) -> Sequence[Path]:
    """A batch of CIFAR's and a file of unlabelled images, in several protocols."""
    paths = []
    for protocol in (0, 2, 4, 5):
        batch = {b"data": _pixels(0).reshape(COUNT, -1), b"labels": list(range(COUNT)), b"batch_label": b"batch 1 of 5"}
        for name, content in (("batch", batch), ("unlabelled", {"data": _pixels(1), "ids": np.arange(COUNT)})):
            paths.append(root / f"{name}{protocol}.pkl")
            paths[-1].write_bytes(pickle.dumps(content, protocol))
    return paths


def _read_pickles(root: Path) -> None:
    for path in sorted(root.glob("*.pkl")):
        if path.name.startswith("batch"):
            restricted_load(path)
        else:
            read_unlabelled(str(path))


def _npz(root: Path) -> Sequence[Path]:
    folder = root / "data" / "pets"
    folder.mkdir()
    for seed, name in enumerate(("train", "test")):
        names = {"class_names": np.array(["cat", "dog"])} if name == "train" else {}
        np.savez_compressed(folder / f"{name}.npz", images=_pixels(seed), labels=np.arange(COUNT) % 2, **names)
    return [folder / "train.npz", folder / "test.npz"]


def _load_pets(root: Path) -> object:
    data = load_data("pets", root=root / "data")
    return data.class_names


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
        stream, **{"images": _pixels(0), "labels": np.arange(COUNT) % 2, name: np.zeros((50 << 20, 3), np.uint8)}
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
    for pixels in _pixels(seed):
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

KINDS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "ppm": "PPM"}


def bomb(kind: str, side: int = 60_000) -> bytes:
    """A small file that declares side x side pixels."""
    size = struct.pack(">II", side, side)
    if kind == "PNG":
        parts = [(b"IHDR", size + bytes([8, 2, 0, 0, 0])), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(text)) + name + text + struct.pack(">I", zlib.crc32(name + text))
            for name, text in parts
        )
    if kind == "BMP":
        return (
            b"BM"
            + struct.pack("<IHHI", 100, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
            + bytes(46)
        )
    if kind == "PPM":
        return f"P6 {side} {side} 255\n".encode() + bytes(99)
    raise ValueError(kind)


def _image_files(root: Path) -> Sequence[Path]:
    paths = []
    for extension, kind in KINDS.items():
        paths.append(root / f"a.{extension}")
        Image.fromarray(np.kron(_pixels(0, 1)[0], np.ones((2, 2, 1), np.uint8))).save(paths[-1], kind)
    deep = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200)
    for name in ("deep.png", "deep.tif"):
        paths.append(root / name)
        deep.save(paths[-1])
    paths.append(root / "float.tif")
    Image.fromarray(np.linspace(-5, 300, 256, dtype=np.float32).reshape(16, 16)).save(paths[-1])
    paths.append(root / "pages.tif")
    Image.new("L", (16, 16)).save(paths[-1], save_all=True, append_images=[Image.new("L", (9, 9))] * 3)
    paths.append(root / "palette.png")
    Image.new("P", (16, 16)).save(paths[-1], transparency=0)
    paths.append(root / "turned.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 9)).save(paths[-1], exif=exif)
    return paths


def _read_images(root: Path) -> None:
    """Together, and so that one bad file is one error."""
    names = [f"a.{extension}" for extension in KINDS] + [
        "deep.png",
        "deep.tif",
        "float.tif",
        "pages.tif",
        "palette.png",
        "turned.jpg",
    ]
    read_unlabelled([str(root / name) for name in names if (root / name).is_file()], image_size=SIDE)


def _forge_image(random: Random, path: Path, content: bytes) -> bytes:
    """Bombs, and the head of one format with the body of another."""
    side = random.choice((9_000, 13_000, 20_000, 60_000, 2**31 - 1))
    kind = random.randrange(5)
    if kind < 3:
        with_size = bomb(("PNG", "BMP", "PPM")[kind], side)
        return with_size + content[random.randrange(len(content)) :]
    if kind == 3:  # other numbers in the first bytes, where formats have their sizes
        head = bytearray(content[:64])
        for _ in range(random.randint(1, 4)):
            place = random.randrange(60)
            head[place : place + 4] = struct.pack(
                random.choice("<>") + "I", random.choice((0, 1, side, 2**31, 2**32 - 1))
            )
        return bytes(head) + content[64:]
    stream = io.BytesIO()
    image = (
        Image.open(io.BytesIO(content))
        .convert("RGB")
        .resize((random.choice((1, 3, 16, 2000)), random.choice((1, 16, 999))))
    )
    image.save(stream, random.choice(list(KINDS.values())))
    return stream.getvalue()


def _folders(root: Path) -> Sequence[Path]:
    """Tiny-ImageNet's layout, with a table of labels."""
    folder, paths = root / "data" / "pets", []
    for seed, name in enumerate(("cat", "dog")):
        (folder / "train" / name / "images").mkdir(parents=True)
        for number, pixels in enumerate(_pixels(seed, 2)):
            paths.append(folder / "train" / name / "images" / f"{number}.png")
            Image.fromarray(pixels).save(paths[-1])
    (folder / "val" / "images").mkdir(parents=True)
    for number, pixels in enumerate(_pixels(2, 2)):
        Image.fromarray(pixels).save(folder / "val" / "images" / f"{number}.png")
    table = folder / "val" / "val_annotations.txt"
    table.write_text("0.png\tcat\t0\t0\n1.png\tdog\t0\t0\n")
    return [*paths, table, table, table]


def _forge_folder(random: Random, path: Path, content: bytes) -> bytes:
    if path.suffix == ".png":
        return _forge_image(random, path, content)
    words = [str(value) for value in EXTREMES if isinstance(value, str | int | float)]
    lines = content.decode().splitlines()
    place = random.randrange(len(lines))
    cells = lines[place].split("\t")
    cells[random.randrange(2)] = random.choice(words)
    lines[place] = "\t".join(cells)
    lines += [f"{random.choice(words)}\t{random.choice(words)}"] * random.randrange(2)
    return random.choice(("\n", "\r\n", "\n\n")).join(lines).encode("utf-8", "replace")


def _decoded(root: Path) -> Sequence[Path]:
    """Copies of the cache's files, which `_read_decoded` puts back: the harness removes the cache after each input."""
    _folders(root)
    _load_pets(root)
    shutil.copytree(root / "data/.cache", root / "kept")
    return sorted((root / "kept").iterdir())


def _read_decoded(root: Path) -> None:
    shutil.copytree(root / "kept", root / "data/.cache", dirs_exist_ok=True, symlinks=True, copy_function=_copied)
    data = load_data("pets", root=root / "data")
    if data.train.images.shape[1:] != (3, SIDE, SIDE) or len(data.train) + len(data.val) != 4 or len(data.test) != 2:
        raise AssertionError(f"another data set was read: {data.train.images.shape}, {len(data.val)}, {len(data.test)}")


def _copied(source: str, target: str) -> None:
    if Path(source).is_file():
        shutil.copyfile(source, target)


def _forge_decoded(random: Random, path: Path, content: bytes) -> bytes:
    if path.suffix == ".json":
        return json.dumps(forged(random, json.loads(content))).encode("utf-8", "surrogatepass")
    with np.load(io.BytesIO(content)) as arrays:
        members = {name: arrays[name] for name in arrays}
    if random.random() < 0.5:
        facts = forged(random, json.loads(members["facts"].tobytes()))
        members["facts"] = np.frombuffer(json.dumps(facts).encode("utf-8", "surrogatepass"), np.uint8)
    else:
        members[random.choice(list(members))] = random.choice(_ARRAYS)
    stream = io.BytesIO()
    np.savez(stream, **members)
    return stream.getvalue()


def _archives(root: Path) -> Sequence[Path]:
    stream = io.BytesIO()
    for mode, name in (("w:gz", "a.tar.gz"), ("w", "b.tar"), ("w:xz", "c.tar.xz")):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as file:
            for member in ("set/train/0.png", "set/train/1.png"):
                facts = tarfile.TarInfo(member)
                facts.size = 300
                file.addfile(facts, io.BytesIO(bytes(300)))
        (root / name).write_bytes(stream.getvalue())
    return [root / "a.tar.gz", root / "b.tar", root / "c.tar.xz"]


def _unpack(root: Path) -> None:
    target = root / "unpacked"
    target.mkdir(exist_ok=True)
    try:
        for name in ("a.tar.gz", "b.tar", "c.tar.xz"):
            shutil.rmtree(target / "set", ignore_errors=True)
            unpack(root / name, target)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _forge_archive(random: Random, path: Path, content: bytes) -> bytes:
    """Members that lead out, links, devices, sparse files, bombs."""
    stream, words = io.BytesIO(), [value for value in EXTREMES if isinstance(value, str) and "\ud800" not in value]
    compression = {".gz": "gz", ".tar": "", ".xz": "xz"}[path.suffix]
    with tarfile.open(
        fileobj=stream, mode=f"w:{compression}", format=random.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    ) as file:
        facts = tarfile.TarInfo(
            random.choice(("set/train/0.png", "../../outside/x", "/tmp/x", "set/../../x", random.choice(words)))
        )
        facts.type = random.choice(
            (tarfile.REGTYPE,) * 3
            + (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
        )
        facts.linkname = random.choice(("/etc/passwd", "../../../outside/secret.png", "0.png", ""))
        body = bytes(random.choice((0, 10, 20 << 20))) if compression == "gz" and random.random() < 0.1 else b"x" * 10
        facts.size = len(body) if facts.isreg() else 0
        if random.random() < 0.2:
            facts.pax_headers = {
                random.choice(("path", "size", "GNU.sparse.size", "GNU.sparse.realsize", "mtime")): random.choice(
                    ("-1", "9" * 20, "../x", "nan")
                )
            }
        file.addfile(facts, io.BytesIO(body))
        if random.random() < 0.3:
            sparse = tarfile.TarInfo("set/sparse.bin")
            sparse.pax_headers = {
                "GNU.sparse.major": "0",
                "GNU.sparse.minor": "1",
                "GNU.sparse.name": "set/big",
                "GNU.sparse.size": str(2**42),
                "GNU.sparse.map": "0,0",
            }
            file.addfile(sparse)
    return stream.getvalue()


READERS = (
    Reader("pickles (CIFAR, unlabelled)", _pickles, _read_pickles, forge_pickle),
    Reader("npz", _npz, _load_pets, _forge_npz),
    Reader("parquet", _parquet, _load_pets, _forge_parquet),
    Reader("image files", _image_files, _read_images, _forge_image),
    Reader("class folders", _folders, _load_pets, _forge_folder),
    Reader("cache of decoded images", _decoded, _read_decoded, _forge_decoded),
    Reader("tar archives", _archives, _unpack, _forge_archive),
)

"""The readers of images: files, class folders, the cache of decoded images, archives."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from benchmarks.bad_files.child import Reader
from benchmarks.bad_files.values import EXTREMES, forged
from kdhelpers import load_data
from kdhelpers.data import check_data
from kdhelpers.data.readers.download import unpack
from kdhelpers.data.readers.unlabelled import read_unlabelled

SIDE, COUNT = 8, 12
KINDS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "ppm": "PPM"}


def some_pixels(seed: int, count: int = COUNT) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def load_pets(root: Path, path: Path) -> object:
    data = load_data("pets", root=root / "data")
    return data.class_names


def check_pets(root: Path, path: Path) -> object:
    """`data NAME --check`, which goes on after a serious finding."""
    return [str(finding) for finding in check_data("pets", root=root / "data")]


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
        Image.fromarray(np.kron(some_pixels(0, 1)[0], np.ones((2, 2, 1), np.uint8))).save(paths[-1], kind)
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


def _read_images(root: Path, path: Path) -> None:
    """With an image of more than 8 bits, whose range it shares."""
    others = [root / name for name in ("deep.png", "float.tif") if path.name != name]
    read_unlabelled([str(each) for each in (path, *others)], image_size=SIDE)


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
        for number, pixels in enumerate(some_pixels(seed, 2)):
            paths.append(folder / "train" / name / "images" / f"{number}.png")
            Image.fromarray(pixels).save(paths[-1])
    (folder / "val" / "images").mkdir(parents=True)
    for number, pixels in enumerate(some_pixels(2, 2)):
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
    load_data("pets", root=root / "data")
    shutil.copytree(root / "data/.cache", root / "kept")
    return sorted((root / "kept").iterdir())


def _read_decoded(root: Path, path: Path) -> None:
    shutil.copytree(
        root / "kept", root / "data/.cache", dirs_exist_ok=True, ignore_dangling_symlinks=True, copy_function=_copied
    )
    data = load_data("pets", root=root / "data")
    if data.train.images.shape[1:] != (3, SIDE, SIDE) or len(data.train) + len(data.val) != 4 or len(data.test) != 2:
        raise AssertionError(f"another data set was read: {data.train.images.shape}, {len(data.val)}, {len(data.test)}")


def _copied(source: str, target: str) -> None:
    if Path(source).is_file():
        shutil.copyfile(source, target)


ODD = [
    np.zeros(0), np.array(5), np.zeros((0, 3, 8, 8), np.uint8), np.zeros((4, 3, 8, 8)), np.zeros((4, 3, 5, 9),
    np.uint8), np.arange(4) - 2,
    np.arange(4) * 10**15, np.array(["a"] * 4), np.zeros(4, "V8"), np.zeros((4, 3, 9, 9), np.uint8), np.zeros(4,
    np.int32), np.zeros((2,) * 9, np.uint8),
]  # fmt: skip


def _forge_decoded(random: Random, path: Path, content: bytes) -> bytes:
    if path.suffix == ".json":
        return json.dumps(forged(random, json.loads(content))).encode("utf-8", "surrogatepass")
    with np.load(io.BytesIO(content)) as arrays:
        members = {name: arrays[name] for name in arrays}
    if random.random() < 0.5:
        facts = forged(random, json.loads(members["facts"].tobytes()))
        members["facts"] = np.frombuffer(json.dumps(facts).encode("utf-8", "surrogatepass"), np.uint8)
    else:
        members[random.choice(list(members))] = random.choice(ODD)
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


def _unpack(root: Path, path: Path) -> None:
    target = root / "unpacked"
    target.mkdir(exist_ok=True)
    try:
        unpack(path, target)
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
            random.choice(("set/train/0.png", "../../outside/x", "/outside/x", "set/../../x", random.choice(words)))
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
    Reader("image files", _image_files, _read_images, _forge_image),
    Reader("class folders", _folders, load_pets, _forge_folder),
    Reader("class folders, checked", _folders, check_pets, _forge_folder),
    Reader("cache of decoded images", _decoded, _read_decoded, _forge_decoded),
    Reader("tar archives", _archives, _unpack, _forge_archive),
)

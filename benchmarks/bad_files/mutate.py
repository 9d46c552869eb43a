"""Damage to a file: of its bytes, of its kind, or a forged content."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

MAGICS = (
    b"PK\x03\x04",
    b"\x80\x02",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"II*\0",
    b"PAR1",
    b"\x93NUMPY",
    b"\x1f\x8b",
)
TEXTS = (b"\xef\xbb\xbf", b"\r\n", b"\0", b"\xff\xfe", b"<script>", b"NaN", b"-1", b"1e999", b"{" * 50, b"9" * 50)
NUMBERS = [struct.pack(code, value) for code, value in (
    ("<I", 0xFFFFFFFF), ("<I", 0x7FFFFFFF), (">I", 0x7FFFFFFF), ("<Q", 2**63 - 1), ("<Q", 2**64 - 1), ("<H", 0xFFFF),
    ("<I", 0),
)]  # fmt: skip
SHARE_OF_KINDS, SHARE_OF_FORGED = 0.02, 0.6


def damage(random: Random, path: Path, whole: dict[Path, bytes], forge: Callable | None) -> None:
    """Replace the file at `path`, whose content is in `whole`, by a damaged one."""
    if random.random() < SHARE_OF_KINDS:
        return _another_kind(random, path)
    if forge and random.random() < SHARE_OF_FORGED:
        content = forge(random, path, whole[path])
        if random.random() < 0.1:
            content = damaged_bytes(random, content, list(whole.values()))
    else:
        content = damaged_bytes(random, whole[path], list(whole.values()))
    path.write_bytes(content)
    return None


def _another_kind(random: Random, path: Path) -> None:
    """A folder, a link in a circle or to what is missing, a device without an end, a pipe without a writer."""
    path.unlink()
    kind = random.randrange(5)
    if kind == 0:
        path.mkdir()
    elif kind == 4:
        os.mkfifo(path)
    else:
        path.symlink_to([path.name, "/nowhere", "/dev/zero"][kind - 1])


def damaged_bytes(random: Random, content: bytes, others: list[bytes]) -> bytes:
    for _ in range(random.choice((1, 1, 1, 2, 5, 20))):
        content = random.choice(CHANGES)(random, content, others)
    return content


def _place(random: Random, content: bytes) -> int:
    """Often near the head or the end, where formats have their tables."""
    size = max(1, len(content))
    return random.choice(
        (random.randrange(size), random.randrange(min(size, 200)), size - 1 - random.randrange(min(size, 400)))
    )


def _flip(random: Random, content: bytes, _: list[bytes]) -> bytes:
    changed = bytearray(content or b"\0")
    changed[_place(random, content)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwrite(random: Random, content: bytes, _: list[bytes]) -> bytes:
    place, piece = _place(random, content), random.choice([*NUMBERS, random.randbytes(random.randint(1, 8))])
    return content[:place] + piece + content[place + len(piece) :]


def _truncate(random: Random, content: bytes, _: list[bytes]) -> bytes:
    return content[: _place(random, content)]


def _insert(random: Random, content: bytes, _: list[bytes]) -> bytes:
    place = _place(random, content)
    return content[:place] + random.choice([*TEXTS, *NUMBERS, *MAGICS, random.randbytes(9)]) + content[place:]


def _delete(random: Random, content: bytes, _: list[bytes]) -> bytes:
    place = _place(random, content)
    return content[:place] + content[place + random.randint(1, 64) :]


def _splice(random: Random, content: bytes, others: list[bytes]) -> bytes:
    other = random.choice(others)
    return content[: _place(random, content)] + other[_place(random, other) :]


def _repeat(random: Random, content: bytes, _: list[bytes]) -> bytes:
    place = _place(random, content)
    return content[:place] + content[place : place + 40] * random.randint(2, 200) + content[place:]


def _lines(_random: Random, content: bytes, _: list[bytes]) -> bytes:
    return b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")


def _zeros(random: Random, content: bytes, _: list[bytes]) -> bytes:
    """A hole, as a power cut leaves one."""
    place, size = _place(random, content), random.choice((16, 512, 4096))
    return content[:place] + bytes(len(content[place : place + size])) + content[place + size :]


CHANGES = (_flip, _flip, _flip, _overwrite, _overwrite, _truncate, _insert, _delete, _splice, _repeat, _lines, _zeros)

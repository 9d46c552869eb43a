"""What a file is that was given as weights and is not a torch file: an archive, a web page, another format."""

import tarfile
import zipfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from kdhelpers.artifacts.impostors import HEAD_BYTES, impostor

MOST_MEMBERS, MOST_NAMES = 10_000, 6  # of an archive that are looked through; in a message
WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors")
CONVERT = "load it with its own library and save the state_dict with torch.save"
FORMATS = {  # first bytes -> what the file is, remedy
    b"\x89HDF": ("an HDF5 file, as of Keras", CONVERT),
    b"Rar!": ("a RAR archive", "unpack it and name a .pth of it"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it and name a .pth of it"),
    b"%PDF": ("a PDF document", "download the weights again"),
    b"\x93NUMPY": ("an array of numpy", CONVERT),
}


def not_weights(path: Path) -> str:
    """`is an archive with a.pth inside; unpack it and name one`, or "" for a file that may be a damaged torch file."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if fake := impostor(head):
        return f"is {fake[0]}, not weights; {fake[1]}"
    for beginning, (kind, remedy) in FORMATS.items():
        if head.startswith(beginning):
            return f"is {kind}, not weights; {remedy}"
    if head[8:9] == b"{" and b'"dtype"' in head:
        return "is a safetensors file; load it with safetensors.torch.load_file and save it with torch.save"
    return _archive(path, head)


def _archive(path: Path, head: bytes) -> str:
    try:
        if head.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            return "" if any(name.endswith("data.pkl") for name in names) else _inside(names)
        with tarfile.open(path) as archive:  # also compressed
            return _inside(member.name for member in islice(archive, MOST_MEMBERS) if member.isfile())
    except Exception:  # damaged archives fail in any way: TarError, BadZipFile, MemoryError, zlib.error, ...
        compressed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"))
        return (
            "is one compressed file; unpack it (gunzip, bunzip2 or unxz) and name what it holds" if compressed else ""
        )


def _inside(names: Iterable[str]) -> str:
    names = [name for name in names if not name.endswith("/")]
    weights = [ascii(name[:80])[1:-1] for name in names if name.lower().endswith(WEIGHTS)]
    if not weights:
        return f"is an archive of {len(names)} files, none of them a .pth; name a weight file"
    more = f" and {len(weights) - MOST_NAMES} more" if len(weights) > MOST_NAMES else ""
    return f"is an archive with {', '.join(weights[:MOST_NAMES])}{more} inside; unpack it and name one of them"

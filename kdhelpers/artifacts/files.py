"""How files are written and read: whole or not at all, tensors without code, one process at a time.

Every write goes to a temporary file in the folder of its target, is flushed to the disk and then renamed. A reader, a
crash or a full disk therefore finds the old file or the new one, never half of one. What a killed process leaves, a
temporary file, is deleted an hour later, by the next process that writes to the folder.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from kdhelpers.artifacts.paths import cannot_write
from kdhelpers.messages import inform

TEMPORARY_SECONDS = 3600  # since its last byte; a living process writes on sooner


def write_atomic(path: Path | str, content: bytes | Callable[[BinaryIO], None]) -> Path:
    """Write `path` whole or not at all; `content` is bytes or a function that fills an open binary file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_left_behind(path.parent)
        with open(temporary, "wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


@cache  # once per process: it lists the folder
def _delete_left_behind(folder: Path) -> None:
    """The temporary files of killed processes. A clock that jumped gives a file an age below 0."""
    for path in folder.glob(".*.[0-9]*.[0-9]*.tmp"):
        with contextlib.suppress(OSError):  # another process may have deleted it
            if abs(time.time() - path.stat().st_mtime) > TEMPORARY_SECONDS:
                path.unlink()


def _replace(temporary: Path, path: Path) -> None:
    """`os.replace`. Windows refuses it while another process reads the old file, so it is tried for a second."""
    for _ in range(20 if os.name == "nt" else 0):
        with contextlib.suppress(PermissionError):
            return os.replace(temporary, path)
        time.sleep(0.05)
    os.replace(temporary, path)


def rename(source: Path, target: Path, variable: str = "KD_ROOT") -> None:
    """`os.replace` with an error that has the remedy: another folder in the variable."""
    try:
        _replace(source, target)
    except OSError as error:
        raise cannot_write(target, error, variable) from error


def delete(path: Path) -> None:
    """Delete the file if it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def append(path: Path | str, offset: int, content: bytes) -> None:
    """Write `content` at `offset`, the new end of the file; bytes after `offset` count as half-written."""
    try:
        Path(path).touch()
        with open(path, "r+b") as file:
            file.truncate(offset)
            file.seek(offset)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(Path(path), error) from error


def save_json(path: Path | str, value: Any) -> Path:
    """Write `value` as indented JSON; NaN and infinity are refused, since no other reader takes them."""
    return write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def save_tensors(path: Path | str, value: Any) -> Path:
    """`torch.save` of tensors and plain containers, atomically."""
    return write_atomic(path, tensor_bytes(value))


def tensor_bytes(value: Any) -> bytes:
    """What `save_tensors` writes. torch's zip writer, on the disk itself, hides a full disk in a RuntimeError."""
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def load_tensors(path: Path | str, device: str = "cpu") -> Any:
    """`torch.load(weights_only=True)`: tensors and plain containers only, pickled objects are refused.

    Raises FileNotFoundError, or ValueError for a damaged file and for one that holds other objects.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file; train it again, or restore it")
    if _is_compressed(path):
        raise ValueError(f"{path}: damaged or not a torch file: compressed, as torch never does; it may be of any size")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise ValueError(
                f"{path}: holds pickled objects besides tensors and is not loaded, since a pickle can "
                "run code; save its state_dict alone"
            ) from error
        raise ValueError(f"{path}: damaged or not a torch file; delete it and train or download again") from error
    except Exception as error:  # on damaged bytes torch's unpickler stumbles in many ways: IndexError, KeyError, ...
        raise ValueError(f"{path}: damaged or truncated; delete it and train or download again") from error


def _is_compressed(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # not a zip, or a damaged one: torch reports it


def sha256(path: Path | str) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def lock(path: Path | str, wait: bool = True) -> Iterator[None]:
    """Hold `path` against other processes; the system frees it when this process ends, however it ends.

    `wait=False` raises BlockingIOError at once if another process holds it. On a file system without locks the block
    runs without one.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b")  # noqa: SIM115  closed below, after the lock
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        while not _try_lock(file):
            if not wait:
                raise BlockingIOError(f"{path.stem} is being trained by another process; wait for it to end")
            time.sleep(0.5)
        yield


def _try_lock(file: BinaryIO) -> bool:
    """False if another process holds the lock. Only EAGAIN and EACCES mean that."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        _inform_of_missing_locks()
    return True


@cache  # once per process
def _inform_of_missing_locks() -> None:
    inform("the file system has no locks: do not train the same run in two processes at once")

"""Where things live, and how they are written: roots, folders, atomic saves, locks, sidecars, records.

Every write goes to a temporary file in the target's own folder, is flushed to the disk and then renamed, so a
reader (or a crash, or a full disk) sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

SCHEMA = 1
FOLDERS = {
    "weights": "pth_models",
    "checkpoints": "pth_models/checkpoints",
    "outputs": "pth_models/outputs",
    "plots": "plots",
    "results": "json_results",
    "submissions": "submissions",
    "executed": "notebooks/executed",
}


def root() -> Path:
    """The artifacts' root: `KD_ROOT`, else the checkout this package lies in, else the current folder."""
    if os.environ.get("KD_ROOT"):
        return Path(os.environ["KD_ROOT"]).expanduser().absolute()
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def data_root() -> Path:
    """Where data sets are looked for and downloaded to: `KD_DATA`, else `data/` under the root."""
    return Path(os.environ["KD_DATA"]).expanduser().absolute() if os.environ.get("KD_DATA") else root() / "data"


def folder(kind: str) -> Path:
    """The folder of one kind of artifact (`FOLDERS` lists them), created on demand."""
    path = root() / FOLDERS[kind]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def _cannot_write(path: Path, error: OSError) -> OSError:
    reason = error.strerror or str(error)
    return OSError(f"cannot write {path}: {reason}; free some space or set KD_ROOT to a folder that can be written")


def write_atomic(path: Path | str, content: bytes | Callable[[BinaryIO], None]) -> Path:
    """Write `path` whole or not at all; `content` is bytes or a function that fills an open binary file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def append(path: Path | str, offset: int, content: bytes) -> None:
    """Write `content` at `offset`, where the file must end after it; what lay there is taken for half-written."""
    try:
        Path(path).touch()
        with open(path, "r+b") as file:
            file.truncate(offset)
            file.seek(offset)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _cannot_write(Path(path), error) from error


def save_json(path: Path | str, value: Any) -> Path:
    """Write `value` as indented JSON; NaN and infinity are refused, since no other reader takes them."""
    return write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def load_json(path: Path | str) -> Any:
    """Read JSON. Raises FileNotFoundError, or ValueError that names a damaged file."""
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: damaged JSON ({error}); delete it and run again") from error


def save_tensors(path: Path | str, value: Any) -> Path:
    """`torch.save` of tensors and plain containers, atomically."""
    import torch

    buffer = io.BytesIO()  # torch's zip writer, on the disk itself, hides a full disk in a RuntimeError
    torch.save(value, buffer)
    return write_atomic(path, buffer.getvalue())


def load_tensors(path: Path | str, device: str = "cpu") -> Any:
    """`torch.load(weights_only=True)`: tensors and plain containers only, pickled objects are refused.

    Raises FileNotFoundError, or ValueError that says whether the file is damaged or holds other objects.
    """
    import pickle

    import torch

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
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
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # no zip, or a damaged one: torch says so


def sha256(path: Path | str) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def lock(path: Path | str, wait: bool = True) -> Iterator[None]:
    """Hold `path` against other processes; the system frees it when this process ends, however it ends.

    `wait=False` raises BlockingIOError at once if another process holds it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b")  # noqa: SIM115  closed below, after the lock
    except OSError as error:
        raise _cannot_write(path, error) from error
    with file:
        while not _try_lock(file):
            if not wait:
                raise BlockingIOError(f"{path.stem} is being trained by another process; wait for it to end")
            time.sleep(0.5)
        yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def record_path(name: str) -> Path:
    return folder("results") / f"{name}.json"


def weights_path(name: str) -> Path:
    return folder("weights") / f"{name}.pth"


def load_record(name: str) -> dict | None:
    """The result record of that name, or None where there is none or it is not of our schema."""
    path = record_path(name)
    if not path.is_file():
        return None
    record = load_json(path)
    ours = isinstance(record, dict) and record.get("schema") == SCHEMA and {"name", "identity", "status"} <= set(record)
    return record if ours else None


def records() -> list[dict]:
    """Every readable result record, sorted by name; files of another kind are passed over."""
    found = []
    for path in sorted((root() / FOLDERS["results"]).glob("*.json")):
        with contextlib.suppress(ValueError):
            if record := load_record(path.stem):
                found.append(record)
    return found


def reserve(name: str, identity: str, stub: dict) -> str:
    """Choose and mark the name under which the run `identity` is stored, and return it.

    That is `name`, unless another run's finished (or still running) record has it: then `name-<8 hex>`. So no run
    ever overwrites another's files; one that ended unfinished gives its name up (its checkpoint is kept by identity).
    """
    with lock(folder("checkpoints") / "names.lock"):
        own = f"{name}-{identity[:8]}"
        for candidate in (name, own):
            record = _record_or_none(candidate)
            if _has_foreign_weights(candidate, identity):
                continue
            if record is None or record.get("identity") == identity or not _is_taken(record):
                if record is None or record.get("identity") != identity or record.get("status") != "finished":
                    save_json(
                        record_path(candidate), {"schema": SCHEMA, "name": candidate, "identity": identity, **stub}
                    )
                return candidate
    raise ValueError(f"both {name} and {own} hold other runs; give this run another name")


def _record_or_none(name: str) -> dict | None:
    path = record_path(name)
    if not path.is_file():
        return None
    try:
        return load_record(name) or {"status": "finished", "identity": None}  # foreign JSON: leave it alone
    except ValueError:
        return {"status": "finished", "identity": None}


def belongs_to_another(name: str, identity: str) -> bool:
    """Whether record or weights lie under that name which are not those of the run `identity`."""
    record = _record_or_none(name)
    return bool(record and record.get("identity") != identity) or _has_foreign_weights(name, identity)


def original_name(name: str) -> str:
    """The name of the record behind a name: another one for weights that are a copy (see `stored.store_under`)."""
    beside = weights_path(name).with_suffix(".json")
    if record_path(name).is_file() or not beside.is_file():
        return name
    described = load_json(beside)
    return described.get("copy_of", name) if isinstance(described, dict) else name


def _has_foreign_weights(name: str, identity: str) -> bool:
    """Whether weights lie under that name which are not, by their sidecar, those of the run `identity`; without a
    sidecar by the record, since a run that is interrupted at its very end may leave weights alone."""
    path = weights_path(name)
    if not path.is_file():
        return False
    beside = path.with_suffix(".json")
    try:
        described = load_json(beside) if beside.is_file() else _record_or_none(name)
    except (OSError, ValueError):
        return True
    return not isinstance(described, dict) or described.get("identity") != identity


def _is_taken(record: dict) -> bool:
    if record.get("status") == "finished":
        return True
    try:
        with lock(run_lock_path(record["identity"]), wait=False):
            return False
    except BlockingIOError:
        return True


def run_lock_path(identity: str) -> Path:
    return folder("checkpoints") / f"{identity[:16]}.lock"


def checkpoint_path(identity: str) -> Path:
    return folder("checkpoints") / f"{identity[:16]}.pt"

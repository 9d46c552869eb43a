"""Result records: what is stored under which name, and how a name is reserved for a run."""

import contextlib
import marshal
from pathlib import Path

from kdhelpers.artifacts.files import lock, save_json
from kdhelpers.artifacts.paths import FOLDERS, folder, record_path, root, run_lock_path, weights_path
from kdhelpers.artifacts.reading import load_json
from kdhelpers.python_paths import mark

SCHEMA = 1
_parsed: dict[Path, tuple[tuple[int, int, int], bytes]] = {}  # path -> (state of the file, its content by marshal)


def load_record(name: str) -> dict | None:
    """The result record of that name, or None if it is missing. Raises ValueError that names a damaged one's faults."""
    try:
        return _copy(_content(record_path(name)))
    except FileNotFoundError:
        return None


def _content(path: Path) -> bytes:
    """The record in the file, by marshal; it is parsed and checked again only if the file changed.

    A file written by another process counts as changed: every write renames a new file.
    """
    status = path.stat()
    state = status.st_mtime_ns, status.st_size, status.st_ino
    if path not in _parsed or _parsed[path][0] != state:
        from kdhelpers.artifacts.record_fields import check_record  # pydantic: `python -m kdhelpers --help` needs none

        content = load_json(path)
        check_record(path, content)
        _parsed[path] = state, marshal.dumps(content)
    return _parsed[path][1]


def _copy(content: bytes) -> dict:
    """Callers may change it. A history has numbers alone, so it has no path to mark."""
    return {field: value if field == "history" else mark(value) for field, value in marshal.loads(content).items()}


def records() -> list[dict]:
    """Every readable result record, sorted by name; `damaged` names the others."""
    return list(map(_copy, _read()[0]))


def damaged() -> list[str]:
    """The faults of the files in json_results/ that `records` leaves out, a line each."""
    return _read()[1]


def _read() -> tuple[list[bytes], list[str]]:
    found, faults = [], []
    for path in _paths():
        try:
            found.append(_content(path))
        except ValueError as error:
            faults.append(str(error))
        except FileNotFoundError:  # another process may have deleted it
            continue
        except OSError as error:
            faults.append(f"{path}: cannot be read ({error.strerror}); move it elsewhere or correct its permissions")
    return found, faults


def _paths() -> list[Path]:
    """The files of the records; `name` stands before `name-<id>`."""
    return sorted((root() / FOLDERS["results"]).glob("*.json"), key=lambda path: path.stem)


def reserve(name: str, identity: str, stub: dict) -> str:
    """Choose and mark the name under which the run `identity` is stored, and return it.

    That is `name`, unless another run's finished (or still running) record has it: then `name-<8 hex>`. So no run
    ever overwrites another's files; one that ended unfinished gives its name up (its checkpoint is kept by identity).
    """
    with lock(folder("checkpoints") / "names.lock"):
        own = f"{name}-{identity[:8]}"
        stored = [r["name"] for r in records() if (r["identity"], r["status"]) == (identity, "finished")]
        for candidate in (*stored, name, own):
            record = _record_or_none(candidate) or {}
            same, finished = record.get("identity") == identity, record.get("status") == "finished"
            taken = record and not same and (finished or is_at_work(record["identity"]))
            if taken or _has_foreign_weights(candidate, identity):
                continue
            if not (same and finished):
                save_json(record_path(candidate), {"schema": SCHEMA, "name": candidate, "identity": identity, **stub})
            return candidate
    raise ValueError(f"both {name} and {own} hold other runs; give this run another name")


def _record_or_none(name: str) -> dict | None:
    with contextlib.suppress(ValueError):
        if record := load_record(name):
            return record
    return {"status": "finished", "identity": None} if record_path(name).is_file() else None  # foreign JSON stays


def belongs_to_another(name: str, identity: str) -> bool:
    """Whether another run than `identity` has a record or weights of that name."""
    record = _record_or_none(name)
    return bool(record and record.get("identity") != identity) or _has_foreign_weights(name, identity)


def original_name(name: str) -> str:
    """The name of the record of these weights; copies of weights have a record of another name."""
    sidecar = weights_path(name).with_suffix(".json")
    if record_path(name).is_file() or not sidecar.is_file():
        return name
    return read_description(sidecar).get("copy_of") or name


def read_description(path: Path) -> dict:
    """The content of a sidecar. Raises FileNotFoundError; ValueError that names a damaged one's faults."""
    from kdhelpers.artifacts.record_fields import check_description

    content = load_json(path)
    check_description(path, content)
    return mark(content)


def _has_foreign_weights(name: str, identity: str) -> bool:
    """Whether another run than `identity` has weights of that name, by their sidecar.

    Without a sidecar by the record: a run that is interrupted at its very end may leave weights alone.
    """
    path = weights_path(name)
    if not path.is_file():
        return False
    sidecar, description = path.with_suffix(".json"), None
    with contextlib.suppress(OSError, ValueError):
        description = load_json(sidecar) if sidecar.is_file() else _record_or_none(name)
    return not isinstance(description, dict) or description.get("identity") != identity


def state(record: dict) -> str:
    """The status of a record as it is now: a run that its process left unfinished is `interrupted`, not `running`."""
    status, error = record.get("status", "unknown"), record.get("error") or ""
    left = status == "running" and not is_at_work(record.get("identity") or "")
    return "interrupted" if left or (status == "failed" and error.startswith("interrupted")) else status


def is_at_work(identity: str) -> bool:
    """Whether a process trains the run now."""
    if not run_lock_path(identity).is_file():
        return False
    try:
        with lock(run_lock_path(identity), wait=False):
            return False
    except BlockingIOError:
        return True

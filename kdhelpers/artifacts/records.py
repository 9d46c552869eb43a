"""Result records: what is stored under which name, and how a name is reserved for a run."""

import contextlib

from kdhelpers.artifacts.files import load_json, lock, save_json
from kdhelpers.artifacts.paths import FOLDERS, folder, record_path, root, run_lock_path, weights_path

SCHEMA = 1


def load_record(name: str) -> dict | None:
    """The result record of that name; None if there is none, or if the file has another schema."""
    path = record_path(name)
    if not path.is_file():
        return None
    record = load_json(path)
    valid = (
        isinstance(record, dict) and record.get("schema") == SCHEMA and {"name", "identity", "status"} <= set(record)
    )
    return record if valid else None


def records() -> list[dict]:
    """Every readable result record, sorted by name; other files are skipped."""
    readable = []
    for path in sorted((root() / FOLDERS["results"]).glob("*.json")):
        with contextlib.suppress(ValueError):
            if record := load_record(path.stem):
                readable.append(record)
    return readable


def reserve(name: str, identity: str, stub: dict) -> str:
    """Reserve the name under which the run `identity` is stored, by its record `stub`, and return the name.

    It is `name`, or `name-<8 hex>` if another run that is finished or still running has that name: no run overwrites
    the files of another. An unfinished run gives its name up; its checkpoint is kept by identity.
    """
    with lock(folder("checkpoints") / "names.lock"):
        own = f"{name}-{identity[:8]}"
        for candidate in (name, own):
            record = _record_or_none(candidate)
            if _has_other_weights(candidate, identity):
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
        return load_record(name) or {"status": "finished", "identity": None}  # JSON of another kind: it stays
    except ValueError:
        return {"status": "finished", "identity": None}


def belongs_to_another(name: str, identity: str) -> bool:
    """Whether the record or the weights of that name are of another run than `identity`."""
    record = _record_or_none(name)
    return bool(record and record.get("identity") != identity) or _has_other_weights(name, identity)


def original_name(name: str) -> str:
    """The name of the record of these weights; copies of weights have a record of another name."""
    sidecar = weights_path(name).with_suffix(".json")
    if record_path(name).is_file() or not sidecar.is_file():
        return name
    description = load_json(sidecar)
    return description.get("copy_of", name) if isinstance(description, dict) else name


def _has_other_weights(name: str, identity: str) -> bool:
    """Whether the weights of that name are of another run than `identity`, by their sidecar.

    The record decides without one: a run that is interrupted at its very end leaves weights without a sidecar.
    """
    path = weights_path(name)
    if not path.is_file():
        return False
    sidecar = path.with_suffix(".json")
    try:
        description = load_json(sidecar) if sidecar.is_file() else _record_or_none(name)
    except (OSError, ValueError):
        return True
    return not isinstance(description, dict) or description.get("identity") != identity


def _is_taken(record: dict) -> bool:
    if record.get("status") == "finished":
        return True
    try:
        with lock(run_lock_path(record["identity"]), wait=False):
            return False
    except BlockingIOError:
        return True

"""Where an export lies: its three files, whether they may be written, and which export lies there."""

import contextlib
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdhelpers import artifacts
from kdhelpers.deploy.extras import FORMATS
from kdhelpers.deploy.network import Source


@dataclass(frozen=True)
class Exported:
    """The file, its description FILE.json as `facts`, and its model card FILE.md."""

    path: Path
    facts: dict[str, Any]

    @property
    def description(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def card(self) -> Path:
        return self.path.with_name(f"{self.path.name}.md")


def path_of(source: Source, settings: dict, output: Path | str | None) -> Path:
    """The file of an export. Raises ValueError for a folder, for a device, and for the files of the weights."""
    if output is None:
        marks = "_int8" * settings["int8"] + "_float" * (settings["pixels"] == "float")
        return artifacts.folder("exports") / f"{source.name}{marks}{FORMATS[settings['format']][0]}"
    path = Path(output)
    if os.path.isdir(path):  # not Path.is_dir: it raises for a name that is too long
        raise ValueError(f"output = {path}: is a folder; name a file in it")
    if os.path.exists(path) and not path.is_file():
        raise ValueError(f"output = {path}: is not a regular file; name another file")
    own = {file.resolve() for file in source.files}
    exported = Exported(path, {})
    if own & {Path(os.path.realpath(file)) for file in (path, exported.description, exported.card)}:
        raise ValueError(f"output = {path}: would replace a file of the weights {source.name}; name another file")
    return path


def locked(path: Path) -> contextlib.AbstractContextManager:
    """Hold the path against the exports of other processes."""
    key = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return artifacts.lock(artifacts.folder("checkpoints") / f"export-{key}.lock")


def stored(exported: Exported) -> Exported | None:
    """The export that lies there, if it is the same; None if nothing does, or what an interrupted export has left.

    Raises ValueError for a file, a description or a card of other content.
    """
    path, wanted = exported.path, exported.facts
    existing = [file for file in (path, exported.description, exported.card) if os.path.exists(file)]
    facts = artifacts.load_json(exported.description) if exported.description in existing else {}
    own = isinstance(facts, dict) and facts.get("file") == path.name
    if not existing or (own and path not in existing):
        return None
    same = own and {key: facts.get(key) for key in wanted} == wanted
    if not same or facts.get("sha256") != artifacts.sha256(path):
        raise ValueError(
            f"output = {existing[0]}: exists and has other content; name another file, or replace it with force"
        )
    return replace(exported, facts=facts) if exported.card in existing else None


def check_writable(exported: Exported) -> None:
    """Before the conversion. The probe's name is longer than those of the three files."""
    probe = exported.path.with_name(f".{exported.description.name}.probe")
    try:
        artifacts.write_atomic(probe, b"").unlink()
    except OSError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        raise OSError(f"output = {exported.path}: cannot be written ({reason}); name another file") from error

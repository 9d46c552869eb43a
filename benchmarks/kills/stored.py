"""What a root holds: read back by the package's readers after a kill, and as bits, to compare two ends of one job."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kdhelpers import artifacts
from kdhelpers.training.checkpoint import Checkpoint
from kdhelpers.weights.load import load_model

# What may differ between two runs of the same job: times, memory, and how many students shared the teacher meanwhile.
VOLATILE = set(
    "started finished resumed seconds images_per_second peak_memory_mib train_seconds seconds_per_epoch lockstep "
    "state".split()  # of a job: done, or unchanged since the start before
)
LEFT_OUT = re.compile(r"\.(lock|log|tgz)$|/\.cache/\w+-\d+\.json$")  # an archive that was unpacked, and times of files
TIME_OF_DAY = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")


def faults(root: Path) -> list[str]:
    """What a reader would take for whole though it is not, or would stumble over."""
    found = list(artifacts.damaged())
    for path in _files(root):
        try:
            _read(path)
        except (OSError, ValueError, KeyError, AssertionError) as error:
            found.append(f"{path.relative_to(root)}: {type(error).__name__}: {error}")
    for record in artifacts.records():
        weights, path = record.get("weights"), artifacts.weights_path(record["name"])
        if record["status"] == "finished" and path.is_file() and artifacts.sha256(path) != weights["sha256"]:
            found.append(f"{record['name']}: its record is of other weights")
    return found


def _files(root: Path) -> Iterator[Path]:
    """All files with their own names: a temporary file has a name that no reader looks for."""
    return (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.endswith((".tmp", ".part")))


def _read(path: Path) -> None:
    checkpoints = path.parent.name == "checkpoints"
    if path.suffix == ".json":
        artifacts.load_json(path)
    elif path.suffix == ".pt":
        checkpoint = Checkpoint("")
        checkpoint.path = path
        checkpoint.load("cpu")
    elif path.suffix == ".head" or (path.suffix == ".pth" and checkpoints):
        artifacts.load_tensors(path)
    elif path.suffix == ".pth" and path.parent.name == "pth_models":
        assert path.with_suffix(".json").is_file(), "weights without a description"
        load_model(str(path))
    elif path.suffix == ".html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), "half a page"
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            assert all(arrays[name].size for name in arrays), "an empty array"


def bits(root: Path) -> dict[str, str]:
    """File -> sha256 of its content, without times; temporary files count."""
    paths = (path for path in sorted(root.rglob("*")) if path.is_file() and not LEFT_OUT.search(str(path)))
    return {str(path.relative_to(root)): hashlib.sha256(_content(path)).hexdigest()[:16] for path in paths}


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".json":
        return json.dumps(_lasting(json.loads(content)), sort_keys=True).encode()
    return TIME_OF_DAY.sub("", content.decode()).encode() if path.suffix in (".html", ".md") else content


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(each) for key, each in value.items() if key not in VOLATILE}
    return [_lasting(each) for each in value] if isinstance(value, list) else value


def differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """What the second end has otherwise than the first."""
    lines = [f"lacks {path}" for path in first if path not in second]
    lines += [f"has {path} besides" for path in second if path not in first]
    return lines + [f"{path} has other bits" for path in first if second.get(path, first[path]) != first[path]]

"""What `real` brings back: records, test logits and curves in one archive, weights in parts of limited size."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.plans import Recipe
from benchmarks.gpu.session import Session, attempt
from benchmarks.measure import row
from kdhelpers import artifacts
from kdhelpers.artifacts.files import write_atomic
from kdhelpers.data import Data
from kdhelpers.display import plots
from kdhelpers.evaluation.predictions import infer
from kdhelpers.weights.load import load_model

PART = 15 * 2**20  # bytes of a file: at most 16 MiB come back
ALL = 60 * 2**20  # bytes of all files: at most 64 MiB come back


def finish(session: Session, data: Data, recipe: Recipe) -> Iterator[dict]:
    """Archives are written small to large, so that a deadline costs the weights and not the records."""
    records = sorted(artifacts.records(), key=lambda record: record["name"])
    finished = [record for record in records if record["status"] == "finished"]
    session.out.mkdir(parents=True, exist_ok=True)
    files = {f"records/{record['name']}.json": artifacts.record_path(record["name"]).read_bytes() for record in records}
    yield _archived(session, files)
    for record in finished:
        logits = infer(load_model(record["name"], device=str(session.device)), data, "test").logits
        files[f"logits/{record['name']}.pt"] = _bytes(logits.half())
        yield row(f"test logits of {record['name']}", len(logits), "images")
    if histories := {record["name"]: record["history"] for record in finished}:
        yield attempt("curves", lambda: _curves(files, histories))
    yield _archived(session, files)
    yield from _weights(session, finished, recipe, ALL - (session.out / "results.tar").stat().st_size)


def _curves(files: dict[str, bytes], histories: dict[str, list[dict]]) -> dict:
    files["curves.png"] = plots.png(plots.curves(histories))
    return row("curves", len(histories), "runs")


def _archived(session: Session, files: dict[str, bytes]) -> dict:
    path = write_atomic(session.out / "results.tar", _tar(files))
    return row("results.tar", path.stat().st_size / 2**20, "MiB") | {"note": f"{len(files)} files"}


def _weights(session: Session, finished: list[dict], recipe: Recipe, room: int) -> Iterator[dict]:
    """The teacher as it is, students in fp16, then checkpoints; what does not fit is named and left out."""
    chosen: dict[str, bytes] = {}
    for name, content in _candidates(finished, recipe):
        if len(content) + sum(map(len, chosen.values())) > room:
            yield row(f"left out: {name}", len(content) / 2**20, "MiB")
            continue
        chosen[name] = content
    for path in session.out.glob("weights.tar.part*"):
        path.unlink()
    for path in split(_tar(chosen), session.out / "weights.tar"):
        yield row(path.name, path.stat().st_size / 2**20, "MiB") | {"note": ", ".join(chosen)}


def _candidates(finished: list[dict], recipe: Recipe) -> Iterator[tuple[str, bytes]]:
    for record in sorted(finished, key=lambda record: record["name"] != recipe.teacher_name):
        path = artifacts.weights_path(record["name"])
        yield path.with_suffix(".json").name, path.with_suffix(".json").read_bytes()
        if record["name"] == recipe.teacher_name:
            yield path.name, path.read_bytes()
        else:
            yield f"{record['name']}.fp16.pth", _bytes(_halved(artifacts.load_tensors(path)))
    for path in sorted(artifacts.folder("checkpoints").glob("*.pt"), key=lambda path: path.stat().st_size):
        yield f"checkpoints/{path.name}", path.read_bytes()


def _halved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}


def split(content: bytes, path: Path) -> list[Path]:
    """`content` as files path.part0, path.part1, ...; `cat` joins them."""
    count = max(1, math.ceil(len(content) / PART))
    parts = [path.with_name(f"{path.name}.part{number}") for number in range(count)]
    for number, part in enumerate(parts):
        write_atomic(part, content[number * PART : (number + 1) * PART])
    return parts


def _bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()

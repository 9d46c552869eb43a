"""The readers of weights: torch files, their descriptions, heads, checkpoints, the teacher's cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import torch

from benchmarks.bad_files.child import Reader
from benchmarks.bad_files.pickles import forge_torch
from benchmarks.bad_files.values import forge_json
from kdhelpers import Run, artifacts, load_data, load_model
from kdhelpers.deploy.network import load_source
from kdhelpers.evaluation.submission import predict_stored
from kdhelpers.models import build_model
from kdhelpers.training.checkpoint import Checkpoint
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.loop import batches_of
from kdhelpers.training.student import Training
from kdhelpers.training.teacher_cache import TeacherCache
from kdhelpers.weights.head import head_path
from kdhelpers.weights.load import describe_teacher, find_weights, teacher_name
from kdhelpers.weights.third_party import load_state

NAME, CLASSES = "teacher_resnet8_digits", 10
RUN = {
    "dataset": "digits",
    "model": "resnet8",
    "role": "teacher",
    "epochs": 2,
    "method": "si",
    "val_fraction": 0.1,
    "split_seed": 0,
}


@cache
def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model("resnet8", CLASSES)


def _bytes(value: object, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def _small() -> dict[str, torch.Tensor]:
    """Few tensors, so that damage often meets the pickle."""
    return {
        "conv.weight": torch.ones(2, 3, 3, 3),
        "fc.weight": torch.zeros(4, 2),
        "fc.bias": torch.zeros(4, dtype=torch.float64),
    }


def _weights(root: Path) -> Sequence[Path]:
    files = {
        "zip.pth": _bytes(_small()),
        "legacy.pth": _bytes(_small(), _use_new_zipfile_serialization=False),
        "wrapped.pth": _bytes({"net": _small(), "epoch": 3, "best_acc": torch.tensor(71.5), "args": ["a", None]}),
        "resnet8.pth": _bytes(_network().state_dict()),
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    return [root / name for name in files]


def _read_weights(root: Path, path: Path) -> None:
    if path.stem == "resnet8":
        load_model(str(path))
    else:
        load_state(path)


def _others(root: Path) -> Sequence[Path]:
    """Files of other formats, given as weights."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    files = {
        "a.safetensors": len(header).to_bytes(8, "little") + header + bytes(8),
        "b.h5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "c.zip": _bytes(_small()),
        "d.bin": b"<!doctype html><title>404</title>",
        "e.onnx": b"\x08\x08\x12\x07pytorch" + bytes(50),
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    return [root / name for name in files]


def _read_others(root: Path, path: Path) -> None:
    """All are refused, whole or damaged."""
    find_weights(str(path))


def _described(root: Path) -> Sequence[Path]:
    """A teacher and a student with a head, whose descriptions are damaged."""
    path = artifacts.save_tensors(artifacts.weights_path(NAME), _network().state_dict())
    facts = {
        "schema": 1, "name": NAME, "identity": "0" * 64, "selection": {"rule": "last", "epoch": 2}, "run": RUN,
        "teacher": None, "imagenet_starts": [],
        "notes": ["a note"], "sha256": artifacts.sha256(path), "model": "resnet8", "model_options": {},
        "num_classes": CLASSES,
        "class_names": [str(digit) for digit in range(CLASSES)], "image_size": 8, "mean": [0.5] * 3,
        "std": [0.25] * 3, "pixel_ranges": {"I": [0, 255]},
        "test_top1_pct": 71.5, "copy_of": NAME,
    }  # fmt: skip
    sidecar = artifacts.save_json(path.with_suffix(".json"), facts)
    torch.manual_seed(1)
    from PIL import Image

    Image.new("RGB", (8, 8)).save(root / "a.png")
    return [sidecar]


def _read_described(root: Path, path: Path) -> None:
    load_model(NAME)
    describe_teacher(NAME, "digits")
    teacher_name("resnet8", "digits")
    artifacts.original_name(NAME)
    with contextlib.suppress(ValueError):  # it names the weights by their name alone
        load_source(NAME)
    predict_stored(NAME, str(root / "a.png"))


def _heads(root: Path) -> Sequence[Path]:
    from kdhelpers.methods.simkd import ReusedClassifier, simkd_projector

    (description,) = _described(root)
    head = ReusedClassifier(simkd_projector(8, 16, 2), torch.nn.Linear(16, CLASSES), (2, 2))
    artifacts.save_tensors(head_path(artifacts.weights_path(NAME)), head.state_dict())
    return [head_path(description)]


def _read_head(root: Path, path: Path) -> None:
    """The description is that of the damaged head, as of one that somebody made."""
    path = artifacts.weights_path(NAME)
    facts = artifacts.load_json(path.with_suffix(".json"))
    with contextlib.suppress(OSError):
        if head_path(path).is_file():
            content = head_path(path).read_bytes()
            facts["head"] = {"file": head_path(path).name, "sha256": hashlib.sha256(content).hexdigest()}
            facts["run"]["method"] = "simkd"
            artifacts.save_json(path.with_suffix(".json"), facts)
    load_model(NAME)


@cache
def _training() -> Training:
    data = load_data("digits")
    run = Run(model="resnet8", role="teacher", epochs=3, dataset="digits")
    return Training(inputs := Inputs(run, data, torch.device("cpu"), "fp32"), batches_of([inputs]))


def _checkpoints(root: Path) -> Sequence[Path]:
    training = _training()
    state = training.state() | {
        "epochs_done": 1,
        "history": [{"epoch": 1, "loss": 2.0, "val_top1_pct": 50.0, "seconds": 1.0}],
    }
    best = {"epoch": 1, "val_top1_pct": 50.0}
    path = artifacts.save_tensors(artifacts.checkpoint_path(training.inputs.identity), state | {"best": best})
    weights = artifacts.save_tensors(path.with_name(f"{path.stem}.best-1.pth"), training.model.state_dict())
    return [path, path, path, weights]


def _read_checkpoint(root: Path, path: Path) -> None:
    checkpoint = Checkpoint(_training().inputs.identity)
    try:
        _training().restore(checkpoint.load("cpu"))
    finally:
        checkpoint.close()


def _forge_checkpoint(random: Random, path: Path, content: bytes) -> bytes:
    """Other values in the tree, or a forged pickle."""
    if random.random() < 0.3:
        return forge_torch(random, path, content)
    state = torch.load(io.BytesIO(content), weights_only=True)
    place, whole = state, state
    while isinstance(place, dict) and place:
        parent, key = place, random.choice(list(place))
        place = place[key]
        if random.random() < 0.4:
            break
    new = random.choice(
        (
            None,
            -1,
            10**30,
            "x",
            float("nan"),
            [],
            {},
            [1],
            {"a": 1},
            torch.zeros(0),
            torch.zeros(3, 3),
            torch.zeros(2).to_sparse(),
            "../x",
            True,
        )
    )
    if random.random() < 0.2:
        del parent[key]
    else:
        parent[key] = new
    return _bytes(whole)


def _cache(root: Path) -> Sequence[Path]:
    rows, stem = torch.arange(60.0).view(20, 3), root / "cache"
    cache = _open_cache(stem)
    cache.add(torch.arange(20), rows)
    cache.save()
    return [cache.rows_file, cache.keys_file]


def _open_cache(stem: Path) -> TeacherCache:
    return TeacherCache(stem, view_count=162, width=3, dtype=torch.float32, device=torch.device("cpu"), writes=True)


def _read_cache(root: Path, path: Path) -> None:
    cache = _open_cache(root / "cache")
    numbers = cache.view_ids[: cache.count]
    if not torch.equal(cache.rows[: cache.count], torch.arange(60.0).view(20, 3)[numbers]):
        raise AssertionError("other rows than those that were saved")


READERS = (
    Reader("weights (.pth)", _weights, _read_weights, forge_torch),
    Reader("other files as weights", _others, _read_others, reads=False),
    Reader("descriptions of weights (JSON)", _described, _read_described, forge_json),
    Reader("heads", _heads, _read_head, forge_torch),
    Reader("checkpoints", _checkpoints, _read_checkpoint, _forge_checkpoint),
    Reader("teacher cache", _cache, _read_cache),
)

"""Teachers made elsewhere: weights are checked and measured, then stored as `teacher_<model>_<dataset>`, with their
origin.

Afterwards `teacher="resnet56"` means them, as it means one that `01_teacher` trained, and tables show them beside it.
"""

import contextlib
import hashlib
import os
import sys
from pathlib import Path

from torch import Tensor, nn

from kdhelpers import artifacts
from kdhelpers.data import Data
from kdhelpers.device import pick_device
from kdhelpers.evaluation.metrics import evaluate
from kdhelpers.evaluation.predictions import infer
from kdhelpers.models import MODELS, build_model, check_model, count_macs, count_parameters, identify_architecture
from kdhelpers.training import record
from kdhelpers.weights.load import load_weights, sidecar
from kdhelpers.weights.third_party import load_checkpoint

TOLERANCE = 0.5  # points of test top-1 between the figure that was published and the one measured here


def register(path: Path, model: str, data: Data, source: str = "", published: dict | None = None) -> dict:
    """Make the weights in `path` the teacher of that architecture for those images; returns its result record.

    path: a state_dict, or a checkpoint with one in it. source: where it is from, `path` itself if left out. published:
    what its makers say of it, `test_top1_pct` and how it was trained (`epochs`, `batch_size`, `selection`); of other
    files nothing is known but the accuracy measured here, and the record says so. No file of another run is
    overwritten, and `path` stays as it is. Registering the same file again loads what is stored.

    Raises FileNotFoundError; ValueError for an unknown architecture, tensors that do not fit it, other classes than the
    images', a test top-1 more than TOLERANCE points from the published one.
    """
    check_model(model)
    identity = hashlib.sha256(f"{artifacts.sha256(path)} {model} {data.name}".encode()).hexdigest()
    if found := registered(identity):
        return found
    state, says = load_checkpoint(path)
    network, options = _network(state, model, data, path)
    print(f"{path}: measuring {model} on {len(data.test):,} test images of {data.name}", file=sys.stderr)
    tested = evaluate(infer(network.to(pick_device()), data))
    _check_accuracy(tested["top1_pct"], published, path)
    known = {key: value for key, value in (published or {}).items() if key != "test_top1_pct"}
    origin = {
        "source": source or str(path),
        "file_sha256": artifacts.sha256(path),
        "file_says": ", ".join(f"{word} {number:g}" for word, number in says.items()) or "nothing",
        **({"published_top1_pct": published["test_top1_pct"]} if published else {}),
        "training": "elsewhere, as published" if published else "elsewhere, unknown",
    }
    described = _described(network, data, model, options, known) | {"origin": origin}
    return _store(network.cpu(), data, path, described, tested, identity)


def registered(identity: str) -> dict | None:
    """The record of a teacher of that identity, if its weights lie here too: records may come with a checkout."""
    for found in artifacts.records():
        if found["identity"] == identity and found["status"] == "finished" and "origin" in found:
            path = artifacts.weights_path(found["name"])
            if path.is_file() and (sidecar(path) or {}).get("identity") == identity:
                return found
    return None


def _network(state: dict[str, Tensor], model: str, data: Data, path: Path) -> tuple[nn.Module, dict]:
    """The network with the weights, and its options: those that shapes tell (a stem), else the defaults."""
    head = f"{MODELS[model].classifier}.weight"
    if head not in state or state[head].ndim != 2:
        raise ValueError(
            f"{path}: weights of another architecture than {model}: lacks a matrix {head}; name the right model"
        )
    if bad := [key for key, value in state.items() if not value.isfinite().all()]:
        raise ValueError(f"{path}: {bad[0]} is not finite; these weights answer nothing")
    options: dict = {}
    with contextlib.suppress(ValueError):
        name, _, found = identify_architecture(state)
        options = found if name == model else {}
    classes = len(state[head])
    if classes != data.num_classes:
        raise ValueError(f"{path}: knows {classes} classes, {data.name} has {data.num_classes}; name its own data set")
    network = build_model(model, classes, **options)
    load_weights(network, state, f"{path} (read as {model}, {classes} classes)")
    return network, check_model(model, options=options)


def _check_accuracy(top1_pct: float, published: dict | None, path: Path) -> None:
    if published and abs(top1_pct - published["test_top1_pct"]) > TOLERANCE:
        raise ValueError(
            f"{path}: reaches {top1_pct:.2f} % on the test images, published are {published['test_top1_pct']:.2f} %: "
            f"more than {TOLERANCE} points apart, so it is another network, or these are other images; not registered"
        )


def _described(network: nn.Module, data: Data, model: str, options: dict, known: dict) -> dict:
    """A record's facts without a training of ours: what is not known of it is left out."""
    device = next(network.parameters()).device
    run = {"dataset": data.name, "image_size": None, "val_fraction": 0.0, "split_seed": 0}  # what it was measured on
    return {
        "error": None,
        "run": run | {"model": model, "model_options": options, "role": "teacher", "selection": "unknown"} | known,
        "teacher": None,
        "start": None,
        "data": record.data_facts(data),
        "imagenet_starts": [],  # none that is known of
        "notes": [],
        "environment": record.environment(device, "fp32"),
        "notebook": None,
        "command": os.environ.get("KD_COMMAND") or record.own_command(),
        "model": {"parameters": count_parameters(network), "macs": count_macs(network, data.image_size)},
        "selection": {"rule": known.get("selection", "unknown"), "epoch": known.get("epochs")},
    }


def _store(
    network: nn.Module, data: Data, path: Path, described: dict, tested: dict[str, float], identity: str
) -> dict:
    """Weights, sidecar and record, in this order: a finished record never lacks its weights."""
    name = f"teacher_{described['run']['model']}_{data.name}"
    weights = artifacts.weights_path(name)
    if weights.is_file() and path.samefile(weights):  # bare weights under the very name: they get their description
        _check_record_is_free(name, identity)
    else:
        name = artifacts.reserve(name, identity, {"status": "running", **described})
        weights = artifacts.save_tensors(artifacts.weights_path(name), network.state_dict())
    finished = {
        "schema": artifacts.SCHEMA,
        "name": name,
        "identity": identity,
        "status": "finished",
        **described,
        "metrics": {f"test_{key}": value for key, value in tested.items() if key != "n"},
        "history": [],
        "probe": None,
        "weights": {"file": weights.name, "sha256": artifacts.sha256(weights)},
    }
    finished["environment"]["finished"] = record.now()
    beside = record.sidecar(finished, data) | {"origin": described["origin"]}
    artifacts.save_json(weights.with_suffix(".json"), beside)
    artifacts.save_json(artifacts.record_path(name), finished)
    return finished


def _check_record_is_free(name: str, identity: str) -> None:
    if artifacts.record_path(name).is_file() and (artifacts.load_record(name) or {}).get("identity") != identity:
        raise ValueError(
            f"{artifacts.record_path(name)}: is the record of another training than the weights under that name; move "
            "the weights elsewhere and register them from there"
        )

"""Teachers made elsewhere: their weights are checked, tested and stored as `teacher_<model>_<dataset>`, with origin.

Afterwards a Run's `teacher="resnet56"` uses them like a teacher that `01_teacher` trained, and tables list them.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdhelpers import artifacts
from kdhelpers.data import Data
from kdhelpers.device import pick_device
from kdhelpers.evaluation.metrics import evaluate
from kdhelpers.evaluation.predictions import Predictions, infer
from kdhelpers.messages import inform
from kdhelpers.models import MODELS, check_model, count_macs, count_parameters, identify_architecture, rebuild_model
from kdhelpers.python_paths import is_python_path, use_network
from kdhelpers.training import record
from kdhelpers.weights.load import load_weights, read_weights
from kdhelpers.weights.third_party import load_checkpoint

NEAR_CHANCE = 0.1  # share of the way from chance to 100 % that weights must reach
REORDERED = 0.5  # accuracy, after the predicted classes are renamed, from which another order is the cause
TOLERANCE = 0.5  # points of test top-1 between the published figure and the one measured here


def register(
    path: Path,
    model: str,
    data: Data,
    source: str = "",
    published: dict | None = None,
    force: bool = False,
    options: Mapping[str, Any] | None = None,
) -> dict:
    """Make the weights in `path` the teacher of that architecture for those images; returns its result record.

    path: a state_dict, or a checkpoint that contains one; it stays as it is. source: its origin, by default `path`.
    published: the published `test_top1_pct`, `epochs`, `batch_size` and `selection`; without it the record holds only
    the accuracy measured here. A file of another run is not overwritten. Registering a file again returns its record.
    force: take weights near chance, with a note. options: of the network; those of the registry's networks that the
    shapes show need not be given.

    Raises FileNotFoundError; ValueError for an unknown architecture, tensors that do not fit it, other classes than the
    images', a test top-1 more than TOLERANCE points from the published one, one near chance.
    """
    if is_python_path(model):
        use_network(model)
    complete, sha256 = check_model(model, options=options), artifacts.sha256(path)
    chosen = f" {json.dumps(complete, sort_keys=True)}" * bool(options)
    identity = hashlib.sha256(f"{sha256} {model} {data.name}{chosen}".encode()).hexdigest()
    if stored := registered(identity):
        return stored
    state, scores = load_checkpoint(path)
    network, options = _network(state, model, data, path, options or {})
    inform(f"{path}: testing {model} on {len(data.test):,} images of {data.name}")
    predictions = infer(network.to(pick_device()), data)
    metrics = evaluate(predictions)
    _check_accuracy(metrics["top1_pct"], published, path)
    doubt = "" if published else _near_chance(predictions, data)
    if doubt and not force:
        raise ValueError(f"{path}: {doubt}; use weights of this data set, or --force to take these with a note")
    training = {key: value for key, value in (published or {}).items() if key != "test_top1_pct"}
    origin = {
        "source": source or str(path),
        "file_sha256": sha256,
        "file_says": ", ".join(f"{name} {number:g}" for name, number in scores.items()) or "nothing",
        **({"published_top1_pct": published["test_top1_pct"]} if published else {}),
        "training": "elsewhere, as published" if published else "elsewhere, unknown",
    }
    facts = _facts(network, data, model, options, training) | {"origin": origin, "notes": [doubt] if doubt else []}
    return _store(network.cpu(), data, path, facts, metrics, identity)


def registered(identity: str) -> dict | None:
    """The record of a registered teacher whose weights are stored here; a checkout has records without weights."""
    for stored in artifacts.records():
        path = artifacts.weights_path(stored["name"])
        same = stored["identity"] == identity and stored["status"] == "finished" and "origin" in stored
        if same and path.is_file() and read_weights(path).description.get("identity") == identity:
            return stored
    return None


def _network(
    state: dict[str, Tensor], model: str, data: Data, path: Path, given: Mapping[str, Any]
) -> tuple[nn.Module, dict]:
    """The network with the weights, and its options: given, identified by the shapes (a stem), or the defaults."""
    if bad := [key for key, value in state.items() if not value.isfinite().all()]:
        raise ValueError(f"{path}: {bad[0]} is not finite, so the outputs are not either; get the file again")
    if model not in MODELS:
        network = rebuild_model(model, data.num_classes, image_size=data.image_size, **given)
        load_weights(network, state, f"{path} (read as {model}, {data.num_classes} classes)")
        return network, check_model(model, options=given)
    head = f"{MODELS[model].classifier}.weight"
    if head not in state or state[head].ndim != 2:
        raise ValueError(f"{path}: weights of another architecture than {model}: lacks {head}; name the right model")
    options: dict = {}
    with contextlib.suppress(ValueError):
        name, _, identified = identify_architecture(state)
        options = identified if name == model else {}
    options |= given
    classes = len(state[head])
    if classes != data.num_classes:
        raise ValueError(f"{path}: has {classes} classes, {data.name} has {data.num_classes}; name its own data set")
    network = rebuild_model(model, classes, **options)
    load_weights(network, state, f"{path} (read as {model}, {classes} classes)")
    return network, check_model(model, options=options)


def _check_accuracy(top1_pct: float, published: dict | None, path: Path) -> None:
    if published and abs(top1_pct - published["test_top1_pct"]) > TOLERANCE:
        raise ValueError(
            f"{path}: reaches {top1_pct:.2f} % on the test images, published are {published['test_top1_pct']:.2f} %: "
            f"more than {TOLERANCE} points apart, so the network or the images differ; not registered"
        )


def _near_chance(predictions: Predictions, data: Data) -> str:
    """Why the weights probably belong to other images or classes; "" if they are well above chance."""
    chance, top1 = 100 / data.num_classes, 100 * predictions.correct.double().mean().item()
    if top1 >= chance + NEAR_CHANCE * (100 - chance):
        return ""
    counts = torch.zeros(data.num_classes, data.num_classes)
    pairs = predictions.logits.argmax(1), predictions.labels
    reordered = 100 * counts.index_put(pairs, torch.tensor(1.0), accumulate=True).amax(1).sum().item() / len(data.test)
    cause = "its normalisation or its images are others, or it is untrained"
    if reordered >= REORDERED * 100:
        cause = f"the order of its classes is another: with the best one it has {reordered:.1f} %"
    return f"near chance: {top1:.1f} % on the test images of {data.name}, chance is {chance:.1f} %; probably {cause}"


def _facts(network: nn.Module, data: Data, model: str, options: dict, training: dict) -> dict:
    """A record's facts, without the unknown ones of a training elsewhere."""
    device = next(network.parameters()).device
    run = {"dataset": data.name, "image_size": None, "val_fraction": 0.0, "split_seed": 0}  # of the test images
    return {
        "error": None,
        "run": run | {"model": model, "model_options": options, "role": "teacher", "selection": "unknown"} | training,
        "teacher": None,
        "start": None,
        "data": record.data_facts(data),
        **record.library_facts(model, pretrained=False),
        "imagenet_starts": [],  # unknown
        "environment": record.environment(device, "fp32"),
        "notebook": None,
        "command": os.environ.get("KD_COMMAND") or record.own_command(),
        "model": {"parameters": count_parameters(network), "macs": count_macs(network, data.image_size)},
        "selection": {"rule": training.get("selection", "unknown"), "epoch": training.get("epochs")},
    }


def _store(network: nn.Module, data: Data, path: Path, facts: dict, metrics: dict[str, float], identity: str) -> dict:
    """Write sidecar, weights and record, in this order, so that each is described before it is there."""
    name = f"teacher_{artifacts.file_name(facts['run']['model'])}_{data.name}"
    weights = artifacts.weights_path(name)
    content = None
    if weights.is_file() and path.samefile(weights):  # weights without a sidecar, stored under that name already
        other = artifacts.record_path(name)
        if other.is_file() and (artifacts.load_record(name) or {}).get("identity") != identity:
            raise ValueError(
                f"{other}: is the record of another training than the weights under that name; move the weights "
                "elsewhere and register them from there"
            )
    else:
        name = artifacts.reserve(name, identity, {"status": "running", **facts})
        weights, content = artifacts.weights_path(name), artifacts.tensor_bytes(network.state_dict())
    finished = {
        "schema": artifacts.SCHEMA,
        "name": name,
        "identity": identity,
        "status": "finished",
        **facts,
        "metrics": {f"test_{key}": value for key, value in metrics.items() if key != "n"},
        "history": [],
        "probe": None,
        "weights": record.file_facts(weights, content or weights.read_bytes()),
    }
    finished["environment"]["finished"] = record.now()
    sidecar = record.sidecar(finished, data) | {"origin": facts["origin"]}
    artifacts.save_json(weights.with_suffix(".json"), sidecar)
    if content:
        artifacts.write_atomic(weights, content)
    artifacts.save_json(artifacts.record_path(name), finished)
    return finished

"""The inputs of a run, looked up once: data, teacher and initial weights; and the identity that follows from them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from kdhelpers.data import Data, load_data
from kdhelpers.data.readers.folders import class_name
from kdhelpers.device import DTYPES, resolve_precision
from kdhelpers.messages import inform
from kdhelpers.methods import METHODS
from kdhelpers.models import MODELS
from kdhelpers.models.networks.torchvision_resnet import STOCK
from kdhelpers.training.checkpoint import stored_precision
from kdhelpers.training.run import Run, distinctive
from kdhelpers.training.teacher import Teacher, load_teacher
from kdhelpers.weights.load import Weights, find_teacher


@dataclass(frozen=True)
class Inputs:
    """A `Run` with everything that it names. `start`: the weights that a fine-tuning starts from."""

    run: Run
    data: Data
    device: torch.device
    precision: str
    teacher: Teacher | None = None
    start: Weights | None = None

    @cached_property
    def facts(self) -> dict:
        """What makes two trainings one and the same: the settings, the images, the weights of teacher and start."""
        return same_training(
            self.run.model_dump(),
            self.data.content_hash,
            self.teacher.sha256 if self.teacher else None,
            self.start.sha256 if self.start else None,
        )

    @cached_property
    def identity(self) -> str:
        """sha256 of the facts: names the lock, the checkpoint and, if the name is taken, the artifacts."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()


def same_training(run: dict, data_hash: str | None, teacher_sha256: str | None, start_sha256: str | None) -> dict:
    """`Inputs.facts` of a run as records store it. Weights count by content, not by the name that the run gives."""
    return {"run": distinctive(run), "data": data_hash, "weights": [teacher_sha256, start_sha256]}


def facts_of_record(record: dict) -> dict | None:
    """`Inputs.facts` of the training that wrote a record; None for weights made elsewhere, of unknown training."""
    if "origin" in record:
        return None
    parts = (record.get(part) for part in ("run", "teacher", "start", "data"))
    run, teacher, start, data = (part if isinstance(part, dict) else {} for part in parts)
    return same_training(run, data.get("hash"), teacher.get("sha256"), start.get("sha256"))


def earlier_identity(inputs: Inputs) -> str:
    """The identity that earlier versions gave: of all fields, with defaults and with options that are now retired."""
    run = inputs.run
    later = {
        field
        for field in ("start_from", "unlabelled", "unlabelled_batch_size", "placebo", "other_image_size")
        if not getattr(run, field)
    }
    fields = run.model_dump(exclude={"name"} | later)
    fields["hyperparameters"] = METHODS[run.method].retired | fields["hyperparameters"]
    if run.model in MODELS and MODELS[run.model].pretrained and run.model_options["base_channels"] == STOCK:
        del fields["model_options"]["base_channels"]
    run_id = hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    weights = [inputs.teacher.sha256 if inputs.teacher else "", *([inputs.start.sha256] if inputs.start else [])]
    return hashlib.sha256(" ".join([run_id, inputs.data.content_hash, *weights]).encode()).hexdigest()


def resolve(runs: Sequence[Run], data: Data | None, device: torch.device, resume: bool = True) -> list[Inputs]:
    """The inputs of runs that share teacher, data and precision; weights are looked up before data are loaded.

    If they may `resume`, the precision "auto" is the precision of their checkpoints, provided that the device has it.
    Raises FileNotFoundError for missing weights, and ValueError for data or a teacher that do not fit.
    """
    first = runs[0]
    name = next((run.teacher for run in runs if run.teacher), None)
    weights = find_teacher(name, first.dataset) if name else None
    starts = [_find_start(run) if run.start_from else None for run in runs]
    data = data or load_data(
        first.dataset, first.image_size, first.val_fraction, first.split_seed, unlabelled=first.unlabelled
    )
    for run in runs:
        _check_data(data, run)
    if weights:
        _check_teacher(weights, name, data, all(run.other_image_size for run in runs if run.teacher))
    precision = resolve_precision(first.precision, device)
    students = [  # weights have the hash that the identity needs; the teacher is loaded in the precision of all
        Inputs(run, data, device, precision, weights if run.teacher else None, start)
        for run, start in zip(runs, starts, strict=True)
    ]
    if resume and first.precision == "auto":
        precision = _precision_of_checkpoints(students)
    before_relu = any("pre_activations" in run.build_method().reads for run in runs if run.teacher)
    teacher = load_teacher(weights, device, DTYPES[precision], before_relu) if weights else None
    return [replace(each, precision=precision, teacher=teacher if each.teacher else None) for each in students]


def _precision_of_checkpoints(students: Sequence[Inputs]) -> str:
    """The precision of all checkpoints, if they agree and the device has it without emulation; else the device's."""
    precision, device = students[0].precision, students[0].device
    has = {"fp32", precision} | ({"fp16"} if (device.type, precision) == ("cuda", "bf16") else set())
    stored = {stored_precision(each.identity) for each in students} - {None}
    if len(stored) != 1 or stored == {precision} or not stored <= has:
        return precision
    inform(f"precision = auto: {min(stored)} as in the checkpoint; a new run on this device takes {precision}")
    return min(stored)


def _check_data(data: Data, run: Run) -> None:
    source = data.unlabelled.source if data.unlabelled is not None else None
    if (data.name, source) != (run.dataset, run.unlabelled) or run.image_size not in (None, data.image_size):
        raise ValueError(
            f"data: {data.name} at {data.image_size} px was given, the run is of dataset = {run.dataset}, image_size = "
            f"{run.image_size}, unlabelled = {run.unlabelled} (given: {source}); load what the run names, or none"
        )
    if run.selection == "best_val" and len(data.val) == 0:
        raise ValueError(
            f"val_fraction = {run.val_fraction}: leaves no image of {data.name} held out, which selection "
            "best_val needs; raise it or take selection last"
        )


def _find_start(run: Run) -> Weights:
    weights = find_teacher(run.start_from, run.dataset)
    if weights.description.get("head"):
        method = weights.description["run"]["method"]
        fault = f"its predictions come from a head ({method}), and its own classifier is not trained"
        raise ValueError(f"start_from = {run.start_from}: {fault}; take other weights")
    return weights


def _check_teacher(weights: Weights, name: str, data: Data, other_image_size: bool) -> None:
    description, fault = weights.description, ""
    if description.get("num_classes", data.num_classes) != data.num_classes:
        fault = f"has {description['num_classes']} classes, {data.name} has {data.num_classes}"
    elif _names(description.get("class_names", data.class_names)) != _names(data.class_names):
        fault = f"its classes ({', '.join(description['class_names'][:3])}, ...) are not the classes of {data.name}"
    if fault:
        raise ValueError(f"teacher = {name}: {fault}; train a teacher on this data set (notebook 01_teacher)")
    size = description.get("image_size", data.image_size)
    if size != data.image_size and not other_image_size:
        raise ValueError(
            f"teacher = {name}: was trained at {size} px, {data.name} has {data.image_size} px; train a teacher at "
            f"this size, take image_size = {size}, or other_image_size = true, which measures it on these images"
        )


def _names(classes: Sequence[str]) -> list[str]:
    return [class_name(name) for name in classes]  # older weights have them as the file system gave them

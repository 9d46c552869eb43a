"""What a result record and a sidecar hold: the JSON facts of a training, as plain functions of what was trained.

Tables and plots are made from the record (json_results/<name>.json). The sidecar, stored with the weights, has what is
needed to use the weights alone.
"""

import hashlib
import os
import platform
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

import kdhelpers
from kdhelpers.data import Data
from kdhelpers.device import device_name
from kdhelpers.evaluation.metrics import evaluate
from kdhelpers.evaluation.predictions import infer
from kdhelpers.models import build_facts, count_parameters, is_external
from kdhelpers.training.caveats import caveats, imagenet_starts
from kdhelpers.training.inputs import Inputs


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def started(inputs: Inputs) -> dict:
    """The record before the first step. The suite passes its notebook copy and command in KD_EXECUTED, KD_COMMAND."""
    teacher, start, origins = inputs.teacher, inputs.start, imagenet_starts(inputs)
    return {
        "status": "running",
        "error": None,
        "run": inputs.run.model_dump(),
        "teacher": _teacher_here(inputs) if teacher else None,
        "start": {"name": start.path.stem, "sha256": start.sha256} if start else None,
        "data": data_facts(inputs.data),
        **library_facts(inputs.run.model, inputs.run.pretrained),
        "imagenet_starts": origins,
        "notes": caveats(inputs, origins),
        "environment": environment(inputs.device, inputs.precision),
        "notebook": os.environ.get("KD_EXECUTED"),
        "command": os.environ.get("KD_COMMAND") or own_command(),
    }


def library_facts(model: str, pretrained: bool) -> dict:
    """{"library": name, version and weights} of a network of torchvision or timm; {} for others."""
    facts = build_facts(model, pretrained) if is_external(model) else {}
    return {"library": facts} if facts else {}


def own_command() -> str:
    """The command of this process, without the paths of one machine."""
    program = Path(sys.argv[0]).name
    if program == "ipykernel_launcher.py":
        return "an interactive notebook"
    return " ".join(["python", program, *sys.argv[1:]]) if program else "interactive python"


def _teacher_here(inputs: Inputs) -> dict:
    """The teacher's facts. At another image size than its own, its accuracy is measured on these images."""
    teacher = inputs.teacher
    facts = teacher_facts(teacher.description, teacher.sha256, inputs.run.teacher)
    size = teacher.description.get("image_size", inputs.data.image_size)
    if size == inputs.data.image_size or not len(inputs.data.test):
        return facts
    here = evaluate(infer(teacher.network, inputs.data))["top1_pct"]
    own = {"image_size": size, "own_test_top1_pct": facts["test_top1_pct"]}
    return facts | own | {"test_top1_pct": here}


def teacher_facts(description: dict, sha256: str, name: str) -> dict:
    """`notes` are about the teacher's accuracy: its test images may differ from the student's."""
    return {
        "name": description.get("name", name),
        "sha256": sha256,
        "model": description.get("model"),
        "test_top1_pct": description.get("test_top1_pct"),
        "notes": description.get("notes", []),
        **({"untrained": True} if (description.get("run") or {}).get("epochs") == 0 else {}),
    }


def data_facts(data: Data) -> dict:
    return {
        "name": data.name,
        "image_size": data.image_size,
        "classes": data.num_classes,
        "hash": data.content_hash,
        **{split: len(getattr(data, split)) for split in ("train", "val", "test")},
        **({"unlabelled": len(data.unlabelled)} if data.unlabelled is not None else {}),
        **({"test_split": data.test_split} if data.test_split else {}),
    }


def environment(device: torch.device, precision: str) -> dict:
    """Software and hardware of a training."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kdhelpers": kdhelpers.__version__,
        "platform": platform.platform(),
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "started": now(),
    }


def finished(
    history: list[dict],
    epoch: int,
    tested: dict[str, float],
    rule: str,
    weights: dict[str, str] | None,
    probe: dict | None = None,
) -> dict:
    """What a finished training adds: selected epoch, metrics, history, facts of the weights and of a linear probe."""
    metrics = {f"test_{key}": value for key, value in tested.items() if key != "n"}
    if history:
        metrics |= {"val_top1_pct": (probe or history[epoch - 1]).get("val_top1_pct"), **_cost(history)}
    return {
        "status": "finished",
        "selection": {"rule": rule, "epoch": epoch},
        "metrics": metrics,
        "history": history,
        "probe": probe,
        "weights": weights,
    }


def _cost(history: list[dict]) -> dict[str, float]:
    seconds = [row["seconds"] for row in history]
    cost = {
        "train_seconds": sum(seconds),
        "seconds_per_epoch": statistics.median(seconds),
        "images_per_second": statistics.median(row["images_per_second"] for row in history),
        "peak_memory_mib": max(row["peak_memory_mib"] for row in history),
    }
    if (students := max(row.get("lockstep", 1) for row in history)) > 1:
        cost["lockstep"] = students  # seconds are shares of the time that so many students took together
    return cost


def file_facts(path: Path, content: bytes) -> dict[str, str]:
    return {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()}


def extra_size(network: nn.Module, head: nn.Module | None) -> dict[str, int]:
    """For a student that predicts by a head: how many more parameters that takes than its own classifier."""
    if head is None:
        return {}
    own = network.get_submodule(network.return_nodes.classifier)
    return {"extra_parameters": count_parameters(head) - count_parameters(own)}


def sidecar(record: dict, data: Data) -> dict:
    """What is needed to use the weights of a finished record alone, and to recognise the training that made them."""
    copied = ["schema", "name", "identity", "selection", "run", "teacher", "imagenet_starts", "notes"]
    return {field: record[field] for field in [*copied, *(name for name in ("head", "library") if name in record)]} | {
        "sha256": record["weights"]["sha256"],
        "model": record["run"]["model"],
        "model_options": record["run"]["model_options"],
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "image_size": data.image_size,
        "mean": list(data.mean),
        "std": list(data.std),
        **({"pixel_ranges": data.pixel_ranges} if data.pixel_ranges else {}),
        "test_top1_pct": record["metrics"]["test_top1_pct"],
    }

"""What a result record and a sidecar say: the JSON facts of a training, as plain functions of what was trained.

The record (json_results/<name>.json) is what tables and plots are made from; the sidecar (beside the weights) is what
is needed to use the weights alone.
"""

import os
import platform
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

import kdhelpers
from kdhelpers import artifacts
from kdhelpers.data import DATASETS, Data
from kdhelpers.device import device_name
from kdhelpers.training.caveats import seen_notes
from kdhelpers.training.run import Run
from kdhelpers.training.teacher import Teacher
from kdhelpers.weights.load import find_teacher


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def started(run: Run, data: Data, teacher: Teacher | None, device: torch.device, precision: str) -> dict:
    """What is known before the first step; the suite names its notebook copy and command in KD_EXECUTED, KD_COMMAND."""
    origins = imagenet_starts(run, teacher)
    return {
        "status": "running",
        "error": None,
        **described(run, data, teacher),
        "imagenet_starts": origins,
        "notes": notes(run, origins) + seen_notes(run, teacher, data),
        "environment": environment(device, precision),
        "notebook": os.environ.get("KD_EXECUTED"),
        "command": os.environ.get("KD_COMMAND") or own_command(),
    }


def described(run: Run, data: Data, teacher: Teacher | None) -> dict:
    """What is trained: the Run, the weights that it builds on, the images."""
    return {
        "run": run.model_dump(),
        "teacher": teacher_facts(teacher, run),
        "start": start_facts(run),
        "data": data_facts(data),
    }


def notes(run: Run, origins: list[str]) -> list[str]:
    """What must be said beside the test figures, of the networks that `imagenet_starts` found behind them: it depends
    on the data set that they are tested on, whatever they were trained on between."""
    source = DATASETS.get(run.dataset)
    leak = source.imagenet_leak if source else None
    return [f"leakage: the {origin} started from ImageNet weights; {leak}" for origin in origins] if leak else []


def imagenet_starts(run: Run, teacher: Teacher | None) -> list[str]:
    """The networks behind a run that started from ImageNet's weights: those behind its teacher, those behind the
    weights that it goes on from, itself."""
    taught = _known_origins(teacher.described, teacher.sha256) if teacher else []
    start = find_teacher(run.start_from, run.dataset) if run.start_from else None
    tuned = _known_origins(start.description, start.sha256) if start else []
    return list(dict.fromkeys([*taught, *tuned, *_own_origin(run.model_dump())]))


def _known_origins(described: dict, sha256: str) -> list[str]:
    """Of stored weights: what their sidecar says, or, for a copy without one, the record of the same content."""
    if not described:
        records = artifacts.records()
        described = next((r for r in records if (r.get("weights") or {}).get("sha256") == sha256), {})
    return described.get("imagenet_starts", _own_origin(described.get("run") or {}))  # older files lack the field


def _own_origin(run: dict) -> list[str]:
    return [f"{run['role']} {run['model']}"] if run.get("pretrained") else []


def training_facts(record: dict) -> dict:
    """What two records of one training have in common, whatever they are called and however the teacher was spelled.

    A field that is None counts as absent, as it is in records older than the field.
    """
    run, weights = record.get("run") or {}, [(record.get(part) or {}).get("sha256") for part in ("teacher", "start")]
    spelled = ("name", "teacher", "start_from")
    settings = {field: value for field, value in run.items() if field not in spelled and value is not None}
    return {"run": settings, "data": (record.get("data") or {}).get("hash"), "weights": weights}


def own_command() -> str:
    """How this process was started, without the paths of one machine."""
    program = Path(sys.argv[0]).name
    if program == "ipykernel_launcher.py":
        return "an interactive notebook"
    return " ".join(["python", program, *sys.argv[1:]]) if program else "interactive python"


def teacher_facts(teacher: Teacher | None, run: Run) -> dict | None:
    if teacher is None:
        return None
    described = teacher.described
    return {
        "name": described.get("name", run.teacher),
        "sha256": teacher.sha256,
        "model": described.get("model"),
        "test_top1_pct": described.get("test_top1_pct"),
        "notes": described.get("notes", []),  # on that accuracy: it may be of other images than the student's
    }


def start_facts(run: Run) -> dict | None:
    """The weights that a fine-tuning went on from."""
    if run.start_from is None:
        return None
    start = find_teacher(run.start_from, run.dataset)
    return {"name": start.path.stem, "sha256": start.sha256}


def data_facts(data: Data) -> dict:
    return {
        "name": data.name,
        "image_size": data.image_size,
        "classes": data.num_classes,
        "hash": data.content_hash,
        **{split: len(getattr(data, split)) for split in ("train", "val", "test")},
        **({"unlabelled": len(data.unlabelled)} if data.unlabelled is not None else {}),
    }


def environment(device: torch.device, precision: str) -> dict:
    """Where and with what a training ran."""
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
    history: list[dict], epoch: int, tested: dict[str, float], rule: str, weights: Path, probe: dict | None = None
) -> dict:
    """What a finished training adds: the selected epoch, its metrics, the history, the weight file's hash, and what
    `probe.fit_probe` says where the classifier is a probe."""
    seconds = [row["seconds"] for row in history]
    metrics = {f"test_{key}": value for key, value in tested.items() if key != "n"} | {
        "val_top1_pct": (probe or history[epoch - 1]).get("val_top1_pct"),
        "train_seconds": sum(seconds),
        "seconds_per_epoch": statistics.median(seconds),
        "images_per_second": statistics.median(row["images_per_second"] for row in history),
        "peak_memory_mib": max(row["peak_memory_mib"] for row in history),
    }
    if (students := max(row.get("lockstep", 1) for row in history)) > 1:
        metrics["lockstep"] = students  # seconds are shares of the time of so many trainings
    return {
        "status": "finished",
        "selection": {"rule": rule, "epoch": epoch},
        "metrics": metrics,
        "history": history,
        "probe": probe,
        "weights": {"file": weights.name, "sha256": artifacts.sha256(weights)},
    }


def sidecar(record: dict, data: Data) -> dict:
    """What is needed to use the weights of a finished record alone, and to tell whether they are those of a Run."""
    return {
        "schema": artifacts.SCHEMA,
        "name": record["name"],
        "identity": record["identity"],
        "sha256": record["weights"]["sha256"],
        "model": record["run"]["model"],
        "model_options": record["run"]["model_options"],
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "image_size": data.image_size,
        "mean": list(data.mean),
        "std": list(data.std),
        "test_top1_pct": record["metrics"]["test_top1_pct"],
        "selection": record["selection"],
        "run": record["run"],
        "teacher": record["teacher"],
        "imagenet_starts": record["imagenet_starts"],
        "notes": record["notes"],
    }

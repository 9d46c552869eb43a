"""`export`: stored weights to a file that runs without this package, checked against PyTorch on test images."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kdhelpers
from kdhelpers import artifacts
from kdhelpers.data import Data
from kdhelpers.deploy import card, formats, runtime
from kdhelpers.deploy.checking import check, cost
from kdhelpers.deploy.extras import check_format
from kdhelpers.deploy.network import HIGHEST, SEED, Source, draw, load_source, pixels_of
from kdhelpers.deploy.place import Exported, check_writable, locked, path_of, stored
from kdhelpers.deploy.quantizing import to_int8
from kdhelpers.device import cpu_name
from kdhelpers.evaluation.predictions import Predictions, infer
from kdhelpers.messages import inform
from kdhelpers.nearest import check_known

CALIBRATION = 256  # training images


def export(
    name: str,
    format: str = "onnx",
    int8: bool = False,
    pixels: str = "uint8",
    output: Path | str | None = None,
    images: int = 2000,
    force: bool = False,
    data: Data | None = None,
) -> Exported:
    """Write stored weights (name or path) as a file of a format of `FORMATS`, with description and model card.

    int8: quantise an ONNX file; the ranges are those of CALIBRATION training images. pixels: `uint8`, or `float` in
    0..1. output: by default a file in `pth_models/exports`. images: the number of test images of the check and of the
    accuracies. data: the data set of the training, if `load_data` cannot load it by its name.

    A file of the same weights and settings is returned, not made again. Raises ValueError for a file of other content,
    unless `force`; for a missing library, before anything is loaded; if the file computes other logits than PyTorch.
    """
    check_format(format, int8)
    check_known("pixels", pixels, HIGHEST)
    if images < 1:
        raise ValueError(f"images = {images}: the check needs test images; take 1 or more")
    source = load_source(name)
    settings = {"format": format, "int8": int8, "pixels": pixels, "test_images": images, **source.hashes}
    exported = Exported(path_of(source, settings, output), settings)
    with locked(exported.path):  # of two exports to one file, the second finds that of the first
        if not force and (found := stored(exported)):
            return found
        check_writable(exported)
        data = source.normalised(source.load_data() if data is None else data)
        content, measured = _made(source, data, settings)
        facts = settings | description(source, format, pixels) | _doubts(source, data) | measured | _environment()
        return _write(replace(exported, facts=facts), content, source)


def description(source: Source, form: str, pixels: str) -> dict[str, Any]:
    """What a program needs to use the file."""
    facts, size = source.facts, source.facts["image_size"]
    kinds = {"uint8": "uint8, 0 to 255", "float": "float32, 0 to 1"}
    weights_alone = form == "safetensors"
    given = "float32, normalised: (pixel / 255 - mean) / std" if weights_alone else kinds[pixels]
    return {
        "name": source.name,
        "input": {"name": "images", "type": given, "shape": ["N", 3, size, size], "channels": "RGB"},
        "output": {"name": "logits", "type": "float32", "shape": ["N", facts["num_classes"]]},
        "class_names": facts["class_names"],
        "image_size": size,
        "mean": facts["mean"],
        "std": facts["std"],
        **{key: facts[key] for key in ("pixel_ranges",) if key in facts},
        "model": facts["model"],
        "model_options": facts.get("model_options", {}),
        "dataset": facts["run"]["dataset"],
        **({"opset": formats.OPSET} if form == "onnx" else {}),
    }


def _metadata(source: Source, settings: dict) -> dict[str, str]:
    """The description and the hashes as texts: a file's own metadata."""
    facts = description(source, settings["format"], settings["pixels"]) | source.hashes
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def _made(source: Source, data: Data, settings: dict) -> tuple[bytes, dict[str, Any]]:
    """The file's content, and what the check measured."""
    form, pixels, metadata = settings["format"], settings["pixels"], _metadata(source, settings)
    if form == "safetensors":
        content = formats.to_safetensors(source.network, metadata)
        return content, {"check": _same_tensors(source, content)}
    chosen = draw(data.test, settings["test_images"])
    reference, images = infer(source.network, data, chosen), pixels_of(chosen.images, pixels)
    module = source.deployable(pixels)
    if form == "torchscript":
        content = formats.to_torchscript(module, images[:2], metadata)
        return content, {"check": check(runtime.torchscript_runner(content), images.numpy(), reference, form)}
    content = formats.to_onnx(module, images[:2], metadata)
    measured = {"check": check(runtime.onnx_runner(content), images.numpy(), reference, form)}
    if settings["int8"]:
        content, more = _quantised(content, images.numpy(), reference, data, pixels, metadata)
        measured |= more
    return content, measured


def _quantised(
    content: bytes, images: np.ndarray, reference: Predictions, data: Data, pixels: str, metadata: dict[str, str]
) -> tuple[bytes, dict[str, Any]]:
    shown = draw(data.train, CALIBRATION)
    small = to_int8(content, pixels_of(shown.images, pixels).numpy(), metadata)
    calibration = {"split": "train", "images": len(shown), "seed": SEED, "ranges": "minimum and maximum"}
    return small, {"calibration": calibration, "int8_cost": cost(runtime.onnx_runner(small), images, reference)}


def _same_tensors(source: Source, content: bytes) -> dict[str, Any]:
    from safetensors.torch import load

    stored, own = load(content), source.network.state_dict()
    if stored.keys() != own.keys() or not all(torch.equal(stored[key], value.cpu()) for key, value in own.items()):
        raise ValueError("format = safetensors: the tensors read back differ; nothing was written; try again")
    return {"tensors": len(own), "largest_difference": 0.0}


def _doubts(source: Source, data: Data) -> dict[str, list[str]]:
    """A note if the images are not those of the training: its test images may be among the calibration images."""
    if (source.record.get("data") or {}).get("hash") in (None, data.content_hash):
        return {}
    note = f"data: the images of {data.name} are not those of the training; the figures of this file are not comparable"
    inform(f"{source.name}: {note}")
    return {"notes": [note]}


def _environment() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"kdhelpers": kdhelpers.__version__, "torch": torch.__version__}
    for library in ("onnx", "onnxscript", "onnxruntime", "safetensors"):
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "machine": cpu_name(), "made": datetime.now(UTC).isoformat(timespec="seconds")}


def _write(exported: Exported, content: bytes, source: Source) -> Exported:
    """The file comes last, so that the same command goes on after an interruption. The description has its sha256."""
    sha256 = hashlib.sha256(content).hexdigest()
    whole = {"file": exported.path.name, "bytes": len(content), "sha256": sha256, **exported.facts}
    exported, text = replace(exported, facts=whole), card.text(source, whole)
    artifacts.save_json(exported.description, whole)
    artifacts.write_atomic(exported.card, text.encode())
    artifacts.write_atomic(exported.path, content)
    return exported

"""Predicted labels of unlabelled images, and the CSV file to hand in.

    ID,Labels
    7,3
    ...

A row per image in the order of the images, labels 0..C-1; on request also the columns Class (its name) and Confidence.
A file is checked before it replaces an older one.
"""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdhelpers import artifacts
from kdhelpers.data import DATASETS, Data, Split, Unlabelled, known_datasets, read_unlabelled
from kdhelpers.device import pick_device
from kdhelpers.display.progress import progress_bar
from kdhelpers.evaluation.predictions import infer
from kdhelpers.weights.load import find_weights, load_model

HEADER = ["ID", "Labels"]
MAX_NAME_BYTES = 200  # most file systems allow 255; a temporary suffix is added during the write
WITH_NAMES = [*HEADER, "Class", "Confidence"]
FIRST_LINES = [",".join(header).encode() + b"\n" for header in (HEADER, WITH_NAMES)]


@dataclass(frozen=True)
class LabelPredictions:
    """A network's predictions for unlabelled images; `probabilities` are float32 [N, C] on the CPU.

    `note`: how the images were resized, if they were, and how numbered classes differ from the labels.
    """

    ids: list[str]
    probabilities: Tensor
    class_names: list[str]
    note: str = ""

    @property
    def labels(self) -> list[int]:
        """The most probable class of each image."""
        return self.probabilities.argmax(1).tolist()

    @property
    def predicted_names(self) -> list[str]:
        """The name of the most probable class of each image."""
        return [self.class_names[label] for label in self.labels]

    @property
    def confidences(self) -> list[float]:
        """The probability of the most probable class of each image."""
        return self.probabilities.amax(1).tolist()


def predict(
    network: nn.Module,
    images: Unlabelled,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str],
    tta: bool = False,
    batch_size: int = 500,
) -> LabelPredictions:
    """Class probabilities of images normalised by `mean` and `std`: `infer` in fp32 with a progress bar.

    tta: the mean over an image and its mirror image (test-time augmentation). Raises ValueError if a probability is not
    finite.
    """
    names, empty = [str(name) for name in class_names], Split(images.images[:0], torch.zeros(0, dtype=torch.int64))
    data = Data(images.source, empty, empty, empty, names, None, None, mean, std)
    with progress_bar(total=len(images), desc="predicting", unit="image") as bar:
        probabilities = infer(network, data, images, batch_size, tta=tta, progress=bar.update).probabilities
    if not probabilities.isfinite().all():
        raise ValueError("probabilities: they are not finite; train the network again at a lower learning rate")
    note = "; ".join(filter(None, [images.note, _order_note(names)]))
    return LabelPredictions(images.ids, probabilities, names, note)


def _order_note(names: list[str]) -> str:
    """How labels and classes correspond, if the classes are numbers that differ from the labels."""
    others = [f"{label} is class {name}" for label, name in enumerate(names) if name.isdecimal() and int(name) != label]
    listed = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
    return f"labels count the classes from 0, so {listed}; --names adds the classes" if others else ""


def predict_stored(
    model: str, source: str | Sequence[str], tta: bool = False, dataset: str | None = None
) -> LabelPredictions:
    """`predict` with stored weights (name or path) on image files, a folder or a pickle, see `read_unlabelled`.

    The description file of the weights gives image size, normalisation and class names; without one, `dataset` does.
    Raises FileNotFoundError or ValueError for missing or contradictory facts before it reads an image.
    """
    weights = find_weights(model, datasets=known_datasets()[0])
    facts = weights.description or _dataset_facts(model, dataset)
    if dataset and (trained_on := (facts.get("run") or {}).get("dataset", dataset)) != dataset:
        raise ValueError(f"dataset = {dataset}: {model} was trained on {trained_on}; leave it out")
    network = load_model(weights, device=str(pick_device()))
    classes = _classes(network, facts)
    if facts.get("num_classes", classes) != classes:
        raise ValueError(
            f"dataset = {dataset}: has {facts['num_classes']} classes, {model} has {classes}; name its training data"
        )
    names = facts.get("class_names") or [str(number) for number in range(classes)]
    missing = {"image_size", "mean", "std"} - facts.keys()
    if missing or len(names) != classes:
        fault = f"lacks {', '.join(sorted(missing))}" if missing else f"names {len(names)} classes of {classes}"
        sidecar = weights.path.with_suffix(".json")
        raise ValueError(f"{sidecar}: {fault}; train {model} again, or remove the file")
    images = read_unlabelled(source, facts["image_size"], facts.get("pixel_ranges"))
    return predict(network, images, facts["mean"], facts["std"], names, tta)


def _classes(network: nn.Module, facts: dict) -> int:
    """Of a network, by its classifier; by the facts, if that is not a linear layer."""
    classifier = network.get_submodule(network.return_nodes.classifier)
    return getattr(classifier, "out_features", facts.get("num_classes"))


def check_output(path: Path | str) -> None:
    """ValueError unless a submission can be written to `path`: a new file, or one that holds an older submission."""
    path = Path(path)
    try:
        first_line = _first_line(path) if path.exists() else FIRST_LINES[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path.parent, os.W_OK) and 0 < len(os.fsencode(path.name)) <= MAX_NAME_BYTES
    except OSError:
        first_line, writable = FIRST_LINES[0], False
    if first_line not in FIRST_LINES:
        raise ValueError(f"output = {path}: exists and is not a submission; name a new file, or an older submission")
    if not writable:
        raise ValueError(f"output = {path}: cannot be written; name another file")


def _first_line(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.readline(100)


def _dataset_facts(model: str, dataset: str | None) -> dict:
    statistics = {name: source for name, source in DATASETS.items() if source.statistics}
    if dataset in known_datasets()[0] and dataset not in statistics:
        raise ValueError(f"dataset = {dataset}: its weights need their description (.json); put it next to {model}")
    if dataset not in statistics:
        fault = "dataset: missing" if dataset is None else f"dataset = {dataset}: unknown"
        raise ValueError(
            f"{fault}; {model} has no description file; name the "
            f"data set that it was trained on, which gives the images' size and normalisation: {', '.join(statistics)}"
        )
    source = statistics[dataset]
    mean, std = source.statistics
    return {"image_size": source.image_size, "mean": mean, "std": std, "num_classes": source.classes}


def write_submission(path: Path | str, predictions: LabelPredictions, names: bool = False) -> Path:
    """Check the submission, then write it to `path` as a whole. Raises as `check_submission` and `check_output`.

    names: with the columns Class and Confidence.
    """
    check_output(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [predictions.ids, predictions.labels]
    if names:
        columns += [predictions.predicted_names, [f"{value:.4f}" for value in predictions.confidences]]
    writer.writerows([WITH_NAMES if names else HEADER, *zip(*columns, strict=True)])
    content = text.getvalue().encode()
    check_submission(content, predictions.ids, len(predictions.class_names))
    return artifacts.write_atomic(path, content)


def check_submission(content: bytes, ids: Sequence[str], num_classes: int) -> None:
    """ValueError unless `content` is a CSV file with a row per id, in order, and labels in 0..num_classes - 1."""
    header, *rows = list(csv.reader(io.StringIO(content.decode(), newline=""))) or [[]]
    if header not in (HEADER, WITH_NAMES):
        raise ValueError(f"submission: begins with {','.join(header)}; must begin with {','.join(HEADER)}")
    if len(rows) != len(ids):
        raise ValueError(f"submission: {len(rows)} rows for {len(ids)} images; there must be one row per image")
    for number, (row, image_id) in enumerate(zip(rows, ids, strict=True), 1):
        if len(row) != len(header) or row[0] != image_id:
            raise ValueError(f"submission: row {number} is {','.join(row)}; ids must be in order, here {image_id}")
        if not row[1].isdecimal() or int(row[1]) >= num_classes:
            raise ValueError(f"submission: row {number} has label {row[1]}; must be a class in 0..{num_classes - 1}")

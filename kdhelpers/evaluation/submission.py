"""Labels for images that have none: what a network says of them, and the CSV file in which they are handed in.

    ID,Labels
    7,3
    ...

A row per image in the order of the images, labels 0..C-1. A file is checked before it takes the place of an older one.
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
from kdhelpers.data import DATASETS, Normalise, Unlabelled, read_unlabelled
from kdhelpers.device import pick_device
from kdhelpers.display.progress import progress_bar
from kdhelpers.weights.load import find_weights, load_model

HEADER = ["ID", "Labels"]
LONGEST_NAME = 200  # bytes: with what is added while it is written, most file systems hold 255
BEGINS = ",".join(HEADER).encode() + b"\n"


@dataclass(frozen=True)
class LabelPredictions:
    """What a network says of images: their `ids` in order, `probabilities` float32 [N, C] on the CPU, `class_names`."""

    ids: list[str]
    probabilities: Tensor
    class_names: list[str]

    @property
    def labels(self) -> list[int]:
        """The most probable class of each image."""
        return self.probabilities.argmax(1).tolist()


@torch.no_grad()
def predict(
    network: nn.Module,
    images: Unlabelled,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str],
    tta: bool = False,
    batch_size: int = 500,
) -> LabelPredictions:
    """What `network`, in eval mode on the device it is on, says of images normalised by `mean` and `std`; in fp32, with
    a progress bar. tta: the mean of the probabilities of an image and its mirror image (test-time augmentation).

    Leaves the network in the mode it was in. Raises ValueError where a probability is not finite.
    """
    device, was_training = next(network.parameters()).device, network.training
    normalise = Normalise(mean, std, images.images.shape[-1], device)
    parts = []
    network.eval()
    with progress_bar(total=len(images), desc="predicting", unit="image") as bar:
        for block in images.images.split(batch_size):
            view = normalise(block.to(device).permute(0, 2, 3, 1))
            shown = [view, view.flip(3)] if tta else [view]
            parts.append(sum(network(each).float().softmax(1) for each in shown).div(len(shown)).cpu())
            bar.update(len(block))
    network.train(was_training)
    probabilities = torch.cat(parts)
    if not probabilities.isfinite().all():
        raise ValueError("the network's probabilities are not finite; train it again at a lower learning rate")
    return LabelPredictions(images.ids, probabilities, [str(name) for name in class_names])


def predict_stored(model: str, source: str, tta: bool = False, dataset: str | None = None) -> LabelPredictions:
    """`predict` with stored weights (name or path) on a pickle or folder, see `read_unlabelled`.

    Size, normalisation and class names come from the description beside the weights; for weights without one they are
    those of `dataset`. Raises FileNotFoundError or ValueError for what is missing or does not fit, before any image is
    looked at.
    """
    weights = find_weights(model)
    known = weights.description or _published(model, dataset)
    if dataset and (of := (known.get("run") or {}).get("dataset", dataset)) != dataset:
        raise ValueError(f"dataset = {dataset}: {model} was trained on {of}, says its description; leave it out")
    network = load_model(weights, device=str(pick_device()))
    classes = network.get_submodule(network.return_nodes.classifier).out_features
    if known.get("num_classes", classes) != classes:
        raise ValueError(
            f"dataset = {dataset}: has {known['num_classes']} classes, {model} tells {classes} apart; name the data "
            "set that it was trained on"
        )
    names = known.get("class_names") or [str(number) for number in range(classes)]
    lacking = {"image_size", "mean", "std"} - known.keys()
    if lacking or len(names) != classes:
        fault = f"lacks {', '.join(sorted(lacking))}" if lacking else f"names {len(names)} classes of {classes}"
        raise ValueError(f"{model}: the description beside it {fault}; train it again, or take the description away")
    return predict(network, read_unlabelled(source, known["image_size"]), known["mean"], known["std"], names, tta)


def check_output(path: Path | str) -> None:
    """ValueError unless a submission can be written there: to a new file, or in place of an older submission."""
    path = Path(path)
    try:
        older = _begins(path) if path.exists() else BEGINS
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path.parent, os.W_OK) and 0 < len(os.fsencode(path.name)) <= LONGEST_NAME
    except OSError:
        older, writable = BEGINS, False
    if older != BEGINS:
        raise ValueError(f"output = {path}: is there and is no submission; name a new file, or an older submission")
    if not writable:
        raise ValueError(f"output = {path}: no file can be written there; name another")


def _begins(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(len(BEGINS))


def _published(model: str, dataset: str | None) -> dict:
    statistics = {name: source for name, source in DATASETS.items() if source.statistics}
    if dataset not in statistics:
        raise ValueError(
            f"dataset = {dataset}: {model} has no description beside it; name the data set that it was trained on, "
            f"whose size and statistics its images need: {', '.join(statistics)}"
        )
    source = statistics[dataset]
    mean, std = source.statistics
    return {"image_size": source.image_size, "mean": mean, "std": std, "num_classes": source.classes}


def write_submission(path: Path | str, answers: LabelPredictions) -> Path:
    """Write `path` whole, or, where its content is not what it must be or `path` is another file, not at all. Raises as
    `check_submission` and `check_output`."""
    check_output(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([HEADER, *zip(answers.ids, answers.labels, strict=True)])
    content = text.getvalue().encode()
    check_submission(content, answers.ids, len(answers.class_names))
    return artifacts.write_atomic(path, content)


def check_submission(content: bytes, ids: Sequence[str], num_classes: int) -> None:
    """ValueError unless `content` is a CSV file of a row per id, in order, each with a label in 0..num_classes - 1."""
    header, *rows = list(csv.reader(io.StringIO(content.decode(), newline=""))) or [[]]
    if header != HEADER:
        raise ValueError(f"submission: begins with {','.join(header)}; must begin with {','.join(HEADER)}")
    if len(rows) != len(ids):
        raise ValueError(f"submission: {len(rows)} rows for {len(ids)} images; there must be one row per image")
    for number, (row, wanted) in enumerate(zip(rows, ids, strict=True), 1):
        if len(row) != 2 or row[0] != wanted:
            raise ValueError(f"submission: row {number} is {','.join(row)}; ids must be in order, here {wanted}")
        if not row[1].isdecimal() or int(row[1]) >= num_classes:
            raise ValueError(f"submission: row {number} has label {row[1]}; must be a class in 0..{num_classes - 1}")

"""Relations between images: how far those in a student's embeddings are from those in its teacher's."""

import pandas
import torch
from torch import Tensor

from kdhelpers.evaluation.predictions import Predictions
from kdhelpers.methods.pkt import pkt_loss
from kdhelpers.methods.rkd import relation_differences
from kdhelpers.methods.sp import image_similarities, sp_loss


@torch.no_grad()
def relations(teacher: Predictions, students: dict[str, Predictions], alone: Predictions, batch_size: int = 64):
    """A DataFrame with a row per student: its losses against the teacher, in percent of the losses of `alone`.

    0 is the arrangement in the teacher's embeddings, 100 that of `alone`, a student without a teacher.
    Columns: network; distances_pct and angles_pct (the terms of RKD); neighbours_pct (PKT); similarities_pct (SP, of
    the embeddings in place of the maps). Losses are means over batches of neighbouring images. Images that do not fill
    a batch are left out, unless all images together are fewer.
    """
    columns = ("distances_pct", "angles_pct", "neighbours_pct", "similarities_pct")
    whole = _losses(teacher, alone, batch_size)
    shares = {name: 100 * _losses(teacher, student, batch_size) / whole for name, student in students.items()}
    rows = [{"network": name, **dict(zip(columns, of.tolist(), strict=True))} for name, of in shares.items()]
    return pandas.DataFrame(rows)


def similarity_maps(predictions: dict[str, Predictions], per_class: int = 6) -> dict[str, Tensor]:
    """The similarities [n, n] of the first images of each class, sorted by class, in each network's embeddings."""
    labels = next(iter(predictions.values())).labels
    chosen = torch.cat([(labels == label).nonzero()[:per_class, 0] for label in labels.unique()])
    return {name: image_similarities(outputs.embeddings[chosen]) for name, outputs in predictions.items()}


def _losses(teacher: Predictions, student: Predictions, batch_size: int) -> Tensor:
    pairs = zip(_batches(student, batch_size), _batches(teacher, batch_size), strict=True)
    return torch.stack([_of_batch(*pair) for pair in pairs]).mean(0)


def _batches(predictions: Predictions, size: int) -> list[Tensor]:
    whole = [rows for rows in predictions.embeddings.split(size) if len(rows) == size]
    return whole or [predictions.embeddings]


def _of_batch(student: Tensor, teacher: Tensor) -> Tensor:
    return torch.stack([*relation_differences(student, teacher), pkt_loss(student, teacher), sp_loss(student, teacher)])

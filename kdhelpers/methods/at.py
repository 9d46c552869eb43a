"""Attention transfer (AT): the student's maps are strong at the pixels at which the teacher's maps are strong.

Q = mean over channels of |F|^exponent, flattened and divided by its Euclidean norm, per image
L = sum over layers of the mean over images and pixels of (Q_s - Q_t)^2

The paper sums over channels, which the norm cancels, and takes the norm of the difference; the mean of squares is the
authors' published code. Channels may differ.
Zagoruyko, Komodakis: Paying More Attention to Attention, ICLR 2017.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.parts.paired_maps import paired_maps, same_size, unit
from kdhelpers.methods.parts.ranges import Count, Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision

MAPS = "student_map [B, c, h, w], teacher_map [B, C, H, W]; pass the maps of the same images"


def at_loss(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor], exponent: int = 2) -> Tensor:
    """The loss above, mean over images and pixels, summed over layers; a scalar.

    student_maps, teacher_maps: lists of [B, c, h, w], layer by layer; if sizes differ, the larger map is
    average-pooled to the smaller. Any float dtype (computed in float32, or float64 for float64 input). An image whose
    map is 0 has Q = 0 and gets no gradient. Raises ValueError on lists and batches that do not fit.
    """
    pairs = layer_pairs(student_maps, teacher_maps)
    return sum(F.mse_loss(attention(student, exponent), attention(teacher, exponent)) for student, teacher in pairs)


def attention(feature_map: Tensor, exponent: int = 2) -> Tensor:
    """Q of a map [B, c, h, w]: [B, h w], each row of norm 1."""
    return unit(feature_map.abs().pow(exponent).mean(1).flatten(1), 1)


def layer_pairs(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The maps of each layer at one size, in full precision. Raises ValueError on lists and batches that do not fit."""
    if not student_maps or len(student_maps) != len(teacher_maps):
        counts = f"student_maps has {len(student_maps)} layers, teacher_maps {len(teacher_maps)}"
        raise ValueError(f"{counts}: must have the same number, at least one; take the names of paired_maps")
    for pair in zip(student_maps, teacher_maps, strict=True):
        check_shapes(MAPS, *pair)
    return [same_size(full_precision(s), full_precision(t)) for s, t in zip(student_maps, teacher_maps, strict=True)]


class LayerMatching(Method):
    """ce_weight CE + kd_weight `loss`, of all maps of each network except its first."""

    reads = ("feature_maps",)
    term: ClassVar[str]  # the name of the loss in the history

    ce_weight: Weight = 1.0
    kd_weight: Weight = 1.0

    def build(self, context: Context) -> None:
        self.layers = paired_maps(context.student_outputs.feature_maps, context.teacher_outputs.feature_maps)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out, teacher_maps = student(view), teacher(view).feature_maps
        maps = zip(*((student_out.feature_maps[s], teacher_maps[t]) for s, t in self.layers), strict=True)
        return {
            "ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels),
            self.term: self.kd_weight * self.loss(*maps),
        }

    def loss(self, student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
        """The loss that kd_weight multiplies."""
        raise NotImplementedError(f"{type(self).__name__} must compare the maps in loss()")


class AttentionTransfer(LayerMatching):
    """ce_weight CE + kd_weight AT, of all maps of each network except its first."""

    title = "AT"
    term: ClassVar[str] = "at"

    kd_weight: Weight = 1000.0
    exponent: Count = 2

    def loss(self, student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
        return at_loss(student_maps, teacher_maps, self.exponent)

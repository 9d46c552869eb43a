"""Neuron selectivity transfer (NST): the student's channels have the distribution of the teacher's over the pixels.

A channel is a vector over the pixels, divided by its Euclidean norm; k(a, b) = <a, b>^2
L = sum over layers of the mean over images of [mean k(t, t') + mean k(s, s') - 2 mean k(s, t)]

The means over pairs of channels make it the squared maximum mean discrepancy (MMD) of two sets of channels. So the
numbers of channels may differ.
Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, 2017, with the polynomial
kernel of degree 2 and offset 0.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from kdhelpers.methods.at import LayerMatching, layer_pairs
from kdhelpers.methods.parts.paired_maps import unit
from kdhelpers.methods.parts.products import inner_products
from kdhelpers.methods.parts.ranges import Weight


def nst_loss(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """The loss above, mean over images and pairs of channels, summed over layers; a scalar.

    student_maps, teacher_maps: lists of [B, c, h, w], layer by layer; if sizes differ, the larger map is
    average-pooled to the smaller. Any float dtype (computed in float32, or float64 for float64 input). A channel that
    is 0 everywhere has k = 0 with all, and gets no gradient. Raises ValueError on lists and batches that do not fit.

    Memory of a layer: B (c + C) h w + B (c^2 + c C + C^2) numbers, c and C the channels of student and teacher.
    """
    pairs = [(channels(student), channels(teacher)) for student, teacher in layer_pairs(student_maps, teacher_maps)]
    return sum(kernel(t, t) + kernel(s, s) - 2 * kernel(s, t) for s, t in pairs)


def channels(feature_map: Tensor) -> Tensor:
    """A map [B, c, h, w] as vectors of norm 1 over the pixels: [B, c, h w]."""
    return unit(feature_map.flatten(2), 2)


def kernel(first: Tensor, second: Tensor) -> Tensor:
    """Mean of <a, b>^2 over images and all pairs of vectors of [B, n, d] and [B, m, d]."""
    return inner_products(first, second).square().mean()


class NeuronSelectivityTransfer(LayerMatching):
    """ce_weight CE + kd_weight NST, of all maps of each network except its first."""

    title = "NST"
    term: ClassVar[str] = "nst"

    kd_weight: Weight = 50.0

    def loss(self, student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
        return nst_loss(student_maps, teacher_maps)

"""Similarity-preserving distillation (SP): images that are similar to the teacher become similar to the student.

G = F F^T of the maps F of a batch, one row an image; each row of G is divided by its Euclidean norm
L = ||G_s - G_t||^2 / B^2

Only similarities of images are compared, so channels and sizes of the maps may differ.
Tung, Mori: Similarity-Preserving Knowledge Distillation, ICCV 2019.
"""

from collections.abc import Collection

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.paired_maps import inform_of_pairs, unit
from kdhelpers.methods.parts.products import inner_products
from kdhelpers.methods.parts.ranges import Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision

FLAT = "student_map [B, d], teacher_map [B, D] after flattening; pass the maps of the same images"


def sp_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """The loss above, mean over all B^2 pairs; a scalar.

    student_map, teacher_map: [B, ...], flattened, any float dtype (computed in float32, or float64 for float64 input).
    One image gives 0. An image whose map is 0 has similarity 0 with all, and gets no gradient. Raises ValueError on
    batches of different sizes.
    """
    student, teacher = student_map.flatten(1), teacher_map.flatten(1)
    check_shapes(FLAT, student, teacher)
    return F.mse_loss(image_similarities(student), image_similarities(teacher))


def image_similarities(feature_map: Tensor) -> Tensor:
    """The rows of G, each of norm 1: [B, ...] -> [B, B]."""
    rows = full_precision(feature_map.flatten(1))
    return unit(inner_products(rows, rows), 1)


def last_name(maps: Collection[str]) -> str:
    """The name of the last of `Outputs.feature_maps`."""
    if not maps:
        raise ValueError("feature_maps: a network names no feature maps; give its Architecture feature_maps")
    return [*maps][-1]


class SimilarityPreserving(Method):
    """ce_weight CE + kd_weight SP, of the last named map of each network.

    The loss compares the images of a batch, those of all ranks in a distributed training: its value depends on the
    batch size.
    """

    title = "SP"
    reads = ("feature_maps",)

    ce_weight: Weight = 1.0
    kd_weight: Weight = 3000.0

    def build(self, context: Context) -> None:
        self.student_layer = last_name(context.student_outputs.feature_maps)
        self.teacher_layer = last_name(context.teacher_outputs.feature_maps)
        inform_of_pairs([(self.student_layer, self.teacher_layer)])

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out = student(view)
        student_map = student_out.feature_maps[self.student_layer]
        teacher_map = teacher(view).feature_maps[self.teacher_layer]
        return {
            "ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels),
            "sp": self.kd_weight * sp_loss(gather(student_map), gather(teacher_map)),
        }

"""Relational knowledge distillation (RKD): the student's embeddings keep the distances and angles of the teacher's.

distance:  psi(i, j) = ||e_i - e_j|| / mean of all ||e_i - e_j|| with i != j
angle:     psi(i, j, k) = cos of the angle at e_i between e_j - e_i and e_k - e_i
L = distance_weight mean_ij h(psi_s - psi_t) + angle_weight mean_ijk h(psi_s - psi_t)

h is the smooth L1 loss: x^2 / 2 for |x| < 1, else |x| - 1/2. The means are over all B^2 pairs and B^3 triples, as in
the published code; an image with itself gives 0. Only relations are compared, so the widths may differ.
Park, Kim, Lu, Cho: Relational Knowledge Distillation, CVPR 2019.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.paired_maps import unit
from kdhelpers.methods.parts.products import inner_products
from kdhelpers.methods.parts.ranges import Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision

EPSILON = 1e-12  # the smallest squared distance of two images, as published
EMBEDDINGS = "student_embedding [B, d], teacher_embedding [B, D]; pass embeddings of the same images"


def rkd_loss(
    student_embedding: Tensor, teacher_embedding: Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0
) -> Tensor:
    """The loss above, a scalar. `relation_differences` describes arguments, precision, memory and errors."""
    distance, angle = relation_differences(student_embedding, teacher_embedding)
    return distance_weight * distance + angle_weight * angle


def relation_differences(student_embedding: Tensor, teacher_embedding: Tensor) -> tuple[Tensor, Tensor]:
    """The distance term and the angle term without their weights, two scalars.

    student_embedding [B, d], teacher_embedding [B, D]: not normalised, any float dtype (computed in float32, or float64
    for float64 input). One image gives 0. Equal embeddings have no direction: their angles are 0, without gradient.
    Raises ValueError on batches of different sizes.

    Memory grows with B^2 d and B^3. Until the backward pass the graph keeps 2 B^2 d + 2 B^3 numbers: 26 MB for B = 128
    and d = 64, 84 MB for d = 512.
    """
    check_shapes(EMBEDDINGS, student_embedding, teacher_embedding)
    student, teacher = distances_and_angles(student_embedding), distances_and_angles(teacher_embedding)
    distance, angle = (F.smooth_l1_loss(s, t) for s, t in zip(student, teacher, strict=True))
    return distance, angle


def distances_and_angles(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Of embeddings [B, d]: distances over their mean [B, B], and cosines at each image of all pairs [B, B, B]."""
    embedding = full_precision(embedding)
    differences = embedding - embedding[:, None]  # [B, B, d]: row i holds e_j - e_i
    count = len(embedding)
    others = 1 - torch.eye(count, device=embedding.device, dtype=embedding.dtype)
    distances = differences.square().sum(2).clamp(min=EPSILON).sqrt() * others
    mean = distances.sum() / max(count * (count - 1), 1)
    directions = unit(differences, 2)
    return distances / mean.clamp(min=EPSILON), inner_products(directions, directions)


class RelationalKD(Method):
    """ce_weight CE + kd_weight (distance_weight distances + angle_weight angles), of the raw embeddings.

    The loss compares the images of a batch, those of all ranks in a distributed training: its value depends on the
    batch size.
    """

    title = "RKD"
    reads = ("embedding",)

    distance_weight: Weight = 25.0
    angle_weight: Weight = 50.0
    ce_weight: Weight = 1.0
    kd_weight: Weight = 1.0

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out = student(view)
        embeddings = gather(student_out.embedding), gather(teacher(view).embedding)
        distance, angle = relation_differences(*embeddings)
        return {
            "ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels),
            "distance": self.kd_weight * self.distance_weight * distance,
            "angle": self.kd_weight * self.angle_weight * angle,
        }

"""Probabilistic knowledge transfer (PKT): each image's probabilities of the others as neighbours match the teacher's.

K(i, j) = (1 + cos(e_i, e_j)) / 2,   p(j | i) = K(i, j) / sum_k K(i, k)
L = mean_ij p_t(j | i) log((p_t(j | i) + 1e-7) / (p_s(j | i) + 1e-7))

Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018, with the
cosine kernel. The paper sums over i and j; the mean and the 1e-7, also in the norms of the cosine, follow the
published code.
"""

import torch
from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.products import inner_products
from kdhelpers.methods.parts.ranges import Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision
from kdhelpers.methods.rkd import EMBEDDINGS

EPSILON = 1e-7  # of the published code


def pkt_loss(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """The loss above, in nats: mean over all B^2 pairs, a scalar.

    student_embedding [B, d], teacher_embedding [B, D]: any float dtype (computed in float32, or float64 for float64
    input). One image gives 0. An embedding of norm 0 has cosine 0 with all, itself included, and gets no gradient.
    Raises ValueError on batches of different sizes.
    """
    check_shapes(EMBEDDINGS, student_embedding, teacher_embedding)
    student, teacher = neighbour_probabilities(student_embedding), neighbour_probabilities(teacher_embedding)
    return (teacher * ((teacher + EPSILON).log() - (student + EPSILON).log())).mean()


def neighbour_probabilities(embedding: Tensor) -> Tensor:
    """p(j | i) of embeddings [B, d]: [B, B], each row with sum 1."""
    embedding = full_precision(embedding)
    norm = torch.linalg.vector_norm(embedding, dim=1, keepdim=True)
    directions = (embedding / (norm + EPSILON)).masked_fill(norm == 0, 0)
    kernel = ((1 + inner_products(directions, directions)) / 2).clamp(min=0)  # a rounded cosine may be below -1
    return kernel / kernel.sum(1, keepdim=True)


class ProbabilisticTransfer(Method):
    """ce_weight CE + kd_weight PKT, of the embeddings; a mean over B^2 needs a large weight.

    The loss compares the images of a batch, those of all ranks in a distributed training: its value depends on the
    batch size.
    """

    title = "PKT"
    reads = ("embedding",)

    ce_weight: Weight = 1.0
    kd_weight: Weight = 30_000.0

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out = student(view)
        return {
            "ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels),
            "pkt": self.kd_weight * pkt_loss(gather(student_out.embedding), gather(teacher(view).embedding)),
        }

"""In-batch contrast of student and teacher embeddings (symmetric InfoNCE), which course notebooks often call CRD.

L = 1/2 [CE(S, i) + CE(S^T, i)],   S_ij = <s_i, t_j> / T

Each image must identify its own embedding in the other network among the embeddings of its batch. There is neither a
memory bank nor a class filter: B - 1 negatives instead of CRD's 16384.
van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, 2018, equation 4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.heads import UnitProjection
from kdhelpers.methods.parts.ranges import ContrastTemperature, Weight, Width
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision


def info_nce_loss(student_embedding: Tensor, teacher_embedding: Tensor, temperature: float = 0.07) -> Tensor:
    """The loss above, a scalar: mean over the batch and the two directions.

    Both embeddings [B, d] with unit rows, any float dtype (computed in float32, or float64 for float64 input). One
    image alone gives 0, equal embeddings of all images log B. Raises ValueError on shapes that differ.
    """
    layout = "student_embedding [B, d], teacher_embedding [B, d]; project both to one dimension"
    check_shapes(layout, student_embedding, teacher_embedding)
    with torch.autocast(student_embedding.device.type, enabled=False):
        scores = full_precision(student_embedding) @ full_precision(teacher_embedding).T / temperature
    own = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


class InBatchContrast(Method):
    """ce_weight CE + contrast_weight InfoNCE; both projection heads (linear, then unit length) are trained."""

    title = "CRD in-batch"
    reads = ("logits", "embedding")

    temperature: ContrastTemperature = 0.07
    ce_weight: Weight = 1.0
    contrast_weight: Weight = 0.8
    dim: Width = 128

    def build(self, context: Context) -> None:
        self.student_head = UnitProjection(context.student_outputs.embedding.shape[1], self.dim)
        self.teacher_head = UnitProjection(context.teacher_outputs.embedding.shape[1], self.dim)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out = student(view)
        student_embedding = gather(self.student_head(student_out.embedding))
        teacher_embedding = gather(self.teacher_head(teacher(view).embedding))
        return {
            "ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels),
            "contrast": self.contrast_weight * info_nce_loss(student_embedding, teacher_embedding, self.temperature),
        }

"""In-batch contrast of student and teacher embeddings (symmetric InfoNCE), which course notebooks often call CRD.

L = 1/2 [CE(S, i) + CE(S^T, i)],   S_ij = <s_i, t_j> / T: each image must find its own embedding in the other network
among those of its batch. There is no memory bank and no class filter: B - 1 negatives in place of CRD's 16384.
van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, 2018, equation 4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method, check_range, check_weights, full_precision
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.heads import UnitProjection


def info_nce_loss(student_embedding: Tensor, teacher_embedding: Tensor, temperature: float = 0.07) -> Tensor:
    """The loss above, a scalar: mean over the batch and the two directions.

    Both embeddings [B, d] with unit rows, any float dtype (computed in float32, or float64 for float64 input). One
    image alone gives 0, equal embeddings of all images log B. Raises ValueError on shapes that differ.
    """
    if student_embedding.shape != teacher_embedding.shape:
        raise ValueError(
            f"student_embedding {tuple(student_embedding.shape)} and teacher_embedding "
            f"{tuple(teacher_embedding.shape)}: must have one shape [B, d]; project both to one dimension"
        )
    with torch.autocast(student_embedding.device.type, enabled=False):
        scores = full_precision(student_embedding) @ full_precision(teacher_embedding).T / temperature
    own = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


class InBatchContrast(Method):
    """ce_weight CE + contrast_weight InfoNCE; both projection heads (linear, then unit length) are trained."""

    title = "CRD in-batch"
    reads = ("logits", "embedding")

    def __init__(
        self, *, temperature: float = 0.07, ce_weight: float = 1.0, contrast_weight: float = 0.8, dim: int = 128
    ):
        super().__init__()
        check_range("temperature", temperature, 0.001, 100)
        check_weights(ce_weight=ce_weight, contrast_weight=contrast_weight)
        check_range("dim", dim, 1, 65536)
        self.temperature, self.dim = temperature, dim
        self.ce_weight, self.contrast_weight = ce_weight, contrast_weight

    def build(self, context: Context) -> None:
        self.student_head = UnitProjection(context.student_outputs.embedding.shape[1], self.dim)
        self.teacher_head = UnitProjection(context.teacher_outputs.embedding.shape[1], self.dim)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        outputs = student(view)
        ours = gather(self.student_head(outputs.embedding))
        theirs = gather(self.teacher_head(teacher(view).embedding))
        return {
            "ce": self.ce_weight * F.cross_entropy(full_precision(outputs.logits), batch.labels),
            "contrast": self.contrast_weight * info_nce_loss(ours, theirs, self.temperature),
        }

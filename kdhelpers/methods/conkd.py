"""ConKD: standardised logit matching and supervised contrast of the student's two views.

L = ce_weight CE + kd_weight L_Z + alpha L_SupCon

L_Z is `standardized_kd_loss`, the mean over both views; L_SupCon is `supcon_loss` of the projected embeddings. On
"embeddings" L_Z compares softmax distributions over the coordinates of standardised embeddings instead of class
logits, through a linear map from the student's width to the teacher's: a choice of this suite that no paper measured.
Sun et al., CVPR 2024; Khosla et al., NeurIPS 2020.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.methods.base import Context, Method, check_range, check_weights, full_precision
from kdhelpers.methods.logit_standardization import standardized_kd_loss
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.heads import ProjectionHead
from kdhelpers.methods.supcon import supcon_loss


class ConKD(Method):
    """kd_weight standardised KD + alpha SupCon (+ ce_weight CE of the first view), on two independent views."""

    title = "ConKD"
    views = 2
    reads = ("logits", "embedding")

    def __init__(
        self,
        *,
        alpha: float = 0.15,
        kd_weight: float = 1.0,
        ce_weight: float = 0.0,
        temperature: float = 2.0,
        contrast_temperature: float = 0.07,
        match: Literal["logits", "embeddings"] = "logits",
        dim: int = 128,
    ):
        super().__init__()
        check_weights(alpha=alpha, kd_weight=kd_weight, ce_weight=ce_weight)
        check_range("temperature", temperature, 0.01, 1000)
        check_range("contrast_temperature", contrast_temperature, 0.001, 100)
        check_range("dim", dim, 1, 65536)
        self.alpha, self.kd_weight, self.ce_weight = alpha, kd_weight, ce_weight
        self.temperature, self.contrast_temperature, self.dim = temperature, contrast_temperature, dim
        self.matches_logits = match == "logits"
        self.trains_classifier = bool(ce_weight or (kd_weight and self.matches_logits))

    def build(self, context: Context) -> None:
        width = context.student_outputs.embedding.shape[1]
        self.head = ProjectionHead(width, self.dim)
        self.widen = nn.Identity()
        if not self.matches_logits:
            self.widen = nn.Linear(width, context.teacher_outputs.embedding.shape[1])

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        seen = [student(view) for view in batch.views]
        terms = {}
        if self.ce_weight:
            terms["ce"] = self.ce_weight * F.cross_entropy(full_precision(seen[0].logits), batch.labels)
        if self.kd_weight:
            terms["kd"] = self.kd_weight * self._matching(seen, [teacher(view) for view in batch.views])
        if self.alpha:
            embeddings = torch.stack([self.head(outputs.embedding) for outputs in seen], 1)
            contrast = supcon_loss(gather(embeddings), gather(batch.labels), self.contrast_temperature)
            terms["supcon"] = self.alpha * contrast
        return terms

    def _matching(self, seen: list, shown: list) -> Tensor:
        """Mean over the views of the standardised matching, of logits or of embeddings."""
        if self.matches_logits:
            student, teacher = [outputs.logits for outputs in seen], [outputs.logits for outputs in shown]
        else:
            student = [self.widen(outputs.embedding) for outputs in seen]
            teacher = [outputs.embedding for outputs in shown]
        losses = [standardized_kd_loss(*pair, self.temperature) for pair in zip(student, teacher, strict=True)]
        return torch.stack(losses).mean()

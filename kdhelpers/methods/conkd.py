"""ConKD: standardised logit matching and supervised contrast of the student's two views.

L = ce_weight CE + kd_weight L_Z + alpha L_SupCon

L_Z is `standardized_kd_loss`, the mean over both views; L_SupCon is `supcon_loss` of the projected embeddings.
Sun et al., CVPR 2024; Khosla et al., NeurIPS 2020.
"""

import torch
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.logit_standardization import standardized_kd_loss
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.heads import ProjectionHead
from kdhelpers.methods.parts.ranges import ContrastTemperature, Temperature, Weight, Width
from kdhelpers.methods.parts.tensors import cross_entropy
from kdhelpers.methods.supcon import supcon_loss


class ConKD(Method):
    """kd_weight standardised KD + alpha SupCon (+ ce_weight CE of the first view), on two independent views."""

    title = "ConKD"
    views = 2
    reads = ("logits", "embedding")
    retired = {"match": "logits"}

    alpha: Weight = 0.15
    kd_weight: Weight = 1.0
    ce_weight: Weight = 0.0
    temperature: Temperature = 2.0
    contrast_temperature: ContrastTemperature = 0.07
    dim: Width = 128

    @property
    def trains_classifier(self) -> bool:
        return bool(self.ce_weight or self.kd_weight)

    def build(self, context: Context) -> None:
        self.head = ProjectionHead(context.student_outputs.embedding.shape[1], self.dim)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        student_out = [student(view) for view in batch.views]
        terms = {}
        if self.ce_weight:
            terms["ce"] = self.ce_weight * cross_entropy(student_out[0].logits, batch.labels)
        if self.kd_weight:
            logits = [(out.logits, teacher(view).logits) for out, view in zip(student_out, batch.views, strict=True)]
            losses = [standardized_kd_loss(*pair, self.temperature) for pair in logits]
            terms["kd"] = self.kd_weight * torch.stack(losses).mean()
        if self.alpha:
            embeddings = torch.stack([self.head(out.embedding) for out in student_out], 1)
            loss = supcon_loss(gather(embeddings), gather(batch.labels), self.contrast_temperature)
            terms["supcon"] = self.alpha * loss
        return terms

"""Logit matching (LM): the student matches the teacher's softened class distribution.

L_KD = T^2 (1/B) sum_b KL(softmax(z_t / T) || softmax(z_s / T)),   L = ce_weight CE + kd_weight L_KD

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, section 2.
"""

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method, check_range, check_weights, full_precision


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 KL(teacher || student) of the softened distributions, summed over classes, mean over the batch; a scalar.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input).
    The gradient with respect to student_logits is T (p_s - p_t) / B. Raises ValueError on shapes that differ.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student_logits {tuple(student_logits.shape)} and teacher_logits {tuple(teacher_logits.shape)}: "
            "must have one shape [B, C]; were the two networks built for the same classes?"
        )
    student = F.log_softmax(full_precision(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(full_precision(teacher_logits) / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


class LogitMatching(Method):
    """ce_weight CE(labels) + kd_weight L_KD. With kd_weight 0 it is cross-entropy, and the teacher is not asked."""

    title = "KD"

    def __init__(self, *, temperature: float = 4.0, ce_weight: float = 0.5, kd_weight: float = 0.5):
        super().__init__()
        check_range("temperature", temperature, 0.01, 1000)
        check_weights(ce_weight=ce_weight, kd_weight=kd_weight)
        self.temperature, self.ce_weight, self.kd_weight = temperature, ce_weight, kd_weight

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        logits = student(view).logits
        terms = {"ce": self.ce_weight * F.cross_entropy(full_precision(logits), batch.labels)}
        if self.kd_weight:
            terms["kd"] = self.kd_weight * self.loss(logits, teacher(view).logits)
        return terms

    def loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """What `kd_weight` weighs."""
        return kd_loss(student_logits, teacher_logits, self.temperature)

"""Logit matching (LM), the classic KD: the student matches the teacher's softened class distribution.

L_KD = T^2 (1/B) sum_b KL(softmax(z_t / T) || softmax(z_s / T)),   L = ce_weight CE + kd_weight L_KD

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, section 2.
"""

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.parts.ranges import Temperature, Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision

LOGITS = "student_logits [B, C], teacher_logits [B, C]; were the two networks built for the same classes?"


def check_logits(student_logits: Tensor, teacher_logits: Tensor, least: int = 1) -> None:
    """Raise ValueError on logits of different shapes and on fewer classes than `least`."""
    check_shapes(LOGITS, student_logits, teacher_logits)
    if (classes := student_logits.shape[1]) < least:
        shape = tuple(student_logits.shape)
        raise ValueError(f"student_logits {shape}: have C = {classes}, this loss needs C >= {least}; add classes")


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 KL(teacher || student) of the softened distributions, summed over classes, mean over the batch; a scalar.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input).
    The gradient with respect to student_logits is T (p_s - p_t) / B. Raises ValueError on shapes that differ.
    """
    check_logits(student_logits, teacher_logits)
    student = F.log_softmax(full_precision(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(full_precision(teacher_logits) / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


class LogitMatching(Method):
    """ce_weight CE + kd_weight L_KD. With kd_weight 0 it is cross-entropy, without a forward pass of the teacher."""

    title = "KD"

    temperature: Temperature = 4.0
    ce_weight: Weight = 0.5
    kd_weight: Weight = 0.5

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        logits = student(view).logits
        terms = {"ce": self.ce_weight * cross_entropy(logits, batch.labels)}
        if self.kd_weight:
            terms["kd"] = self.kd_weight * self.loss(logits, teacher(view).logits)
        return terms

    def loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The loss that kd_weight multiplies."""
        return kd_loss(student_logits, teacher_logits, self.temperature)

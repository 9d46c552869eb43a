"""Transformed teacher matching (TTM; WTTM weighs the images): a temperature on the teacher alone, 1 on the student.

L_TTM = (1/B) sum_b KL(q_b || softmax(z_s,b)),   q = softmax(gamma z_t), which is p_t^gamma normalised, gamma = 1/T
L_WTTM = (1/B) sum_b U_b KL(q_b || softmax(z_s,b)),   U = sum_c p_t,c^gamma,   p_t = softmax(z_t)
L = ce_weight CE + kd_weight L_TTM, or L_WTTM

Compared with KD, TTM adds a Renyi entropy of the student's prediction as a regulariser (paper, theorem). U weighs an
image more if the teacher is unsure of it. At gamma 1 both losses are `kd_loss` at T = 1.
Zheng, Yang: Knowledge Distillation Based on Transformed Teacher Matching, ICLR 2024.
"""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.logit_matching import check_logits
from kdhelpers.methods.parts.ranges import Range, Weight
from kdhelpers.methods.parts.tensors import cross_entropy, full_precision

Power = Annotated[float, Range(0.001, 100)]  # multiplies the teacher's logits: 1 / temperature


def ttm_loss(student_logits: Tensor, teacher_logits: Tensor, gamma: float = 0.1) -> Tensor:
    """KL(softmax(gamma z_t) || softmax(z_s)), summed over classes, mean over the batch, without T^2; a scalar in nats.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input).
    The gradient with respect to student_logits is (p_s - q) / B. Raises ValueError on shapes that differ.
    """
    return _divergences(student_logits, teacher_logits, gamma).mean()


def wttm_loss(student_logits: Tensor, teacher_logits: Tensor, gamma: float = 0.2) -> Tensor:
    """`ttm_loss` with the divergence of each image weighed by U, from 1 (a sure teacher) to C^(1 - gamma); a scalar."""
    divergences = _divergences(student_logits, teacher_logits, gamma)
    log_p = F.log_softmax(full_precision(teacher_logits), dim=1)
    return ((gamma * log_p).logsumexp(1).exp() * divergences).mean()


def _divergences(student_logits: Tensor, teacher_logits: Tensor, gamma: float) -> Tensor:
    """KL of each image, [B]. The logits are scaled: a power of the softmax would lose classes that round to 0."""
    check_logits(student_logits, teacher_logits)
    student = F.log_softmax(full_precision(student_logits), dim=1)
    teacher = F.log_softmax(gamma * full_precision(teacher_logits), dim=1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)


class TransformedTeacherMatching(Method):
    """ce_weight CE + kd_weight L_TTM. The defaults are printed for vgg13 to vgg8; for no other pair are any printed."""

    title = "TTM"

    gamma: Power = 0.1
    ce_weight: Weight = 1.0
    kd_weight: Weight = 45.0

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        logits = student(view).logits
        return {
            "ce": self.ce_weight * cross_entropy(logits, batch.labels),
            "kd": self.kd_weight * self.loss(logits, teacher(view).logits),
        }

    def loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The loss that kd_weight multiplies."""
        return ttm_loss(student_logits, teacher_logits, self.gamma)


class WeightedTransformedTeacherMatching(TransformedTeacherMatching):
    """ce_weight CE + kd_weight L_WTTM. The defaults are printed only together with CRD at weight 0.8."""

    title = "WTTM"

    gamma: Power = 0.2
    kd_weight: Weight = 4.0

    def loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return wttm_loss(student_logits, teacher_logits, self.gamma)

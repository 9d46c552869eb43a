"""Weighted soft labels (WSLD): soft labels count less for an image that the student fits better than the teacher does.

L_W = T^2 (1/B) sum_b w_b CE(softmax(z_t / T), softmax(z_s / T)),   w_b = 1 - exp(-CE(y, p_s) / CE(y, p_t))
L = ce_weight CE + kd_weight L_W

p is softmax(z), at temperature 1; w carries no gradient. CE(p_t, p_s) is a cross-entropy, so L_W is not 0 for equal
networks. Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang: Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance
Tradeoff Perspective, ICLR 2021.
"""

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.parts.ranges import Temperature, Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision

EPS = 1e-7  # added to the teacher's cross-entropy
LAYOUT = "student_logits [B, C], teacher_logits [B, C], labels [B]; were both networks built for the labels' classes?"


def wsld_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 4.0) -> Tensor:
    """L_W above, summed over classes, mean over the batch; a scalar.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input);
    labels: int64 [B]. With one class it is 0. Raises ValueError on shapes that differ.
    """
    check_shapes(LAYOUT, student_logits, teacher_logits, labels)
    student, teacher = full_precision(student_logits), full_precision(teacher_logits)
    student_ce, teacher_ce = (F.cross_entropy(logits, labels, reduction="none") for logits in (student, teacher))
    weight = -(-student_ce / (teacher_ce + EPS)).expm1().detach()  # 1 - exp(...), also for a small exponent
    soft_ce = F.cross_entropy(student / temperature, F.softmax(teacher / temperature, dim=1), reduction="none")
    return temperature**2 * (weight * soft_ce).mean()


class WeightedSoftLabels(Method):
    """ce_weight CE + kd_weight L_W; the defaults are the authors' for CIFAR-100 (ImageNet: kd_weight 2.5, T 2)."""

    title = "WSLD"

    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0
    kd_weight: Weight = 2.25

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        logits = student(view).logits
        loss = wsld_loss(logits, teacher(view).logits, batch.labels, self.temperature)
        return {"ce": self.ce_weight * cross_entropy(logits, batch.labels), "kd": self.kd_weight * loss}

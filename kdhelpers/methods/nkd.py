"""Normalised KD (NKD): the label's part of the cross-entropy with the teacher, and a distribution over the others.

L_NKD = (1/B) sum_b [-p_t,y log p_s,y + gamma T^2 CE(q_t, q_s)],   L = ce_weight CE + kd_weight L_NKD

p is softmax(z), at T = 1. q is the distribution over the classes except the label y, renormalised, at T: plain
cross-entropy would compare distributions whose sums, 1 - p_y, differ. Both parts are cross-entropies, so the loss of
equal networks is above 0. The gradient of the first part is not 0 either: p_t,y pulls p_s,y to 1.
Yang et al.: From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and
Customized Soft Labels, ICCV 2023.
"""

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.dkd import among_others
from kdhelpers.methods.logit_matching import check_logits
from kdhelpers.methods.parts.ranges import NonNegative, Temperature, Weight
from kdhelpers.methods.parts.tensors import cross_entropy, full_precision


def nkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, gamma: float = 1.5, temperature: float = 1.0
) -> Tensor:
    """-p_t,y log p_s,y + gamma T^2 CE over the other classes, summed over classes, mean over the batch; a scalar.

    `normalized_cross_entropies` describes arguments, precision and errors.
    """
    target, others = normalized_cross_entropies(student_logits, teacher_logits, labels, temperature)
    return (target + gamma * temperature**2 * others).mean()


def normalized_cross_entropies(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """-p_t,y log p_s,y and CE(q_t, q_s) of each image, in nats, both [B], without T^2 and weights.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input);
    labels: int64 [B]. With two classes the second is 0. Raises ValueError on logits of different shapes and one class.
    """
    check_logits(student_logits, teacher_logits, least=2)
    student, teacher = full_precision(student_logits), full_precision(teacher_logits)
    log_p_s, log_p_t = (F.log_softmax(z, dim=1).gather(1, labels[:, None])[:, 0] for z in (student, teacher))
    log_q_s, log_q_t = (among_others(z / temperature, labels) for z in (student, teacher))
    return -log_p_t.exp() * log_p_s, -(log_q_t.exp() * log_q_s).sum(1)


class NormalizedKD(Method):
    """ce_weight CE + kd_weight L_NKD. The defaults are ImageNet's; published for CIFAR-100: gamma 3.5, T 3."""

    title = "NKD"

    gamma: NonNegative = 1.5
    temperature: Temperature = 1.0
    ce_weight: Weight = 1.0
    kd_weight: Weight = 1.0

    def build(self, context: Context) -> None:
        check_logits(context.student_outputs.logits, context.teacher_outputs.logits, least=2)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        logits = student(view).logits
        parts = normalized_cross_entropies(logits, teacher(view).logits, batch.labels, self.temperature)
        target, others = (each.mean() for each in parts)
        return {
            "ce": self.ce_weight * cross_entropy(logits, batch.labels),
            "target": self.kd_weight * target,
            "others": self.kd_weight * self.gamma * self.temperature**2 * others,
        }

"""Decoupled knowledge distillation (DKD): weights KD's part for the label and its part for the other classes apart.

TCKD = KL((p_t,y, 1 - p_t,y) || (p_s,y, 1 - p_s,y)),   NCKD = KL(p_t,others || p_s,others), each renormalised
KD = TCKD + (1 - p_t,y) NCKD,   L = ce_weight CE + min(epoch / warmup_epochs, 1) T^2 (alpha TCKD + beta NCKD)

p is softmax(z / T), y the label. In plain KD, a teacher that is sure of the label suppresses NCKD.
Zhao et al.: Decoupled Knowledge Distillation, CVPR 2022, equations 6 and 7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.logit_matching import check_logits
from kdhelpers.methods.parts.ranges import NonNegative, Temperature, Weight
from kdhelpers.methods.parts.tensors import cross_entropy, full_precision
from kdhelpers.methods.parts.warmup import warmup


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """T^2 (alpha TCKD + beta NCKD), summed over classes, mean over the batch; a scalar.

    `decoupled_divergences` describes arguments, precision and errors. alpha 1 and beta 1 - p_t,y would be `kd_loss`.
    """
    target, others = decoupled_divergences(student_logits, teacher_logits, labels, temperature)
    return temperature**2 * (alpha * target + beta * others).mean()


def decoupled_divergences(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 4.0
) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD of each image, in nats, both [B], without T^2 and weights.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input);
    labels: int64 [B]. With two classes NCKD is 0. Raises ValueError on logits of different shapes and on one class.
    """
    check_logits(student_logits, teacher_logits, least=2)
    student, teacher = full_precision(student_logits) / temperature, full_precision(teacher_logits) / temperature
    target = F.kl_div(label_or_not(student, labels), label_or_not(teacher, labels), reduction="none", log_target=True)
    others = F.kl_div(among_others(student, labels), among_others(teacher, labels), reduction="none", log_target=True)
    return target.sum(1), others.sum(1)


def label_or_not(logits: Tensor, labels: Tensor) -> Tensor:
    """log (p_y, 1 - p_y) [B, 2] of the logits [B, C]. The sum over the others keeps a 1 - p_y that would round to 0."""
    log_p = F.log_softmax(logits, dim=1)
    log_rest = log_p.gather(1, _others(logits, labels)).logsumexp(1, keepdim=True)
    return torch.cat([log_p.gather(1, labels[:, None]), log_rest], dim=1)


def among_others(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-distribution over the classes except the label, [B, C - 1]."""
    return F.log_softmax(logits.gather(1, _others(logits, labels)), dim=1)


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """[B, C - 1]: every class except the label. A boolean mask would make the host wait for the device to count."""
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    return others + (others >= labels[:, None])


class DecoupledKD(Method):
    """ce_weight CE + alpha TCKD + beta NCKD; the last two rise over the first `warmup_epochs` (0: no warm-up)."""

    title = "DKD"

    alpha: Weight = 1.0
    beta: Weight = 8.0
    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0
    warmup_epochs: NonNegative = 20.0

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        logits = student(view).logits
        target, others = self.divergences(logits, teacher(view).logits, batch.labels)
        weight = self.temperature**2 * warmup(epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * cross_entropy(logits, batch.labels),
            "tckd": weight * self.alpha * target.mean(),
            "nckd": weight * self.beta * others.mean(),
        }

    def divergences(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """TCKD and NCKD of each image, without T^2 and weights."""
        return decoupled_divergences(student_logits, teacher_logits, labels, self.temperature)

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
from kdhelpers.methods.logit_matching import LOGITS
from kdhelpers.methods.parts.ranges import NonNegative, Temperature, Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision


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
    check_shapes(LOGITS, student_logits, teacher_logits)
    if student_logits.shape[1] < 2:
        raise ValueError(f"student_logits {tuple(student_logits.shape)}: DKD needs a class besides the label, C >= 2")
    student = _decoupled(full_precision(student_logits) / temperature, labels)
    teacher = _decoupled(full_precision(teacher_logits) / temperature, labels)
    target, others = (F.kl_div(s, t, reduction="none", log_target=True) for s, t in zip(student, teacher, strict=True))
    return target.sum(1), others.sum(1)


def _decoupled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log (p_y, 1 - p_y) [B, 2], and the log-distribution over the other classes [B, C - 1].

    It gathers the other classes: a boolean mask would make the host wait for the device to count its entries.
    """
    target = labels[:, None]
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = others + (others >= target)  # [B, C - 1]: every class except the label
    log_p = F.log_softmax(logits, dim=1)
    log_rest = log_p.gather(1, others).logsumexp(1, keepdim=True)  # log(1 - p_y) without the 1 - p_y that rounds to 0
    return torch.cat([log_p.gather(1, target), log_rest], dim=1), F.log_softmax(logits.gather(1, others), dim=1)


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
        weight = self.temperature**2 * self.warmup(epoch)
        return {
            "ce": self.ce_weight * cross_entropy(logits, batch.labels),
            "tckd": weight * self.alpha * target.mean(),
            "nckd": weight * self.beta * others.mean(),
        }

    def divergences(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """TCKD and NCKD of each image, without T^2 and weights."""
        return decoupled_divergences(student_logits, teacher_logits, labels, self.temperature)

    def warmup(self, epoch: int) -> float:
        """min(epoch / warmup_epochs, 1): at first beta times NCKD would dominate an untrained student."""
        return min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0

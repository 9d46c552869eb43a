"""Refined logits (RLD): the student takes no false class from a teacher that errs.

confidence = KL((p_t,m, 1 - p_t,m) || (p_s,y, 1 - p_s,y)),   m = argmax z_t: the teacher's sureness, given to the label
correlation = KL(q_t || q_s),   q renormalised over the classes with z_t,c < z_t,y: those that the teacher ranks below
L = ce_weight CE + min(epoch / warmup_epochs, 1) T^2 (alpha confidence + beta correlation)

p is softmax(z / T), y the label; both parts have one T, the teacher's logits alone decide which classes are left out.
If the teacher is right, m = y and the loss is DKD's.
Sun et al.: Knowledge Distillation with Refined Logits, ICCV 2025.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.dkd import label_or_not
from kdhelpers.methods.logit_matching import check_logits
from kdhelpers.methods.parts.ranges import NonNegative, Temperature, Weight
from kdhelpers.methods.parts.tensors import cross_entropy, full_precision
from kdhelpers.methods.parts.warmup import warmup


def rld_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """T^2 (alpha confidence + beta correlation), summed over classes, mean over the batch; a scalar.

    `refined_divergences` describes arguments, precision and errors.
    """
    confidence, correlation = refined_divergences(student_logits, teacher_logits, labels, temperature)
    return temperature**2 * (alpha * confidence + beta * correlation).mean()


def refined_divergences(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 4.0
) -> tuple[Tensor, Tensor]:
    """Both parts of each image, in nats, both [B], without T^2 and weights.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input);
    labels: int64 [B]. Classes that tie with the label go. With one class left, or none, correlation and its gradient
    are 0. Raises ValueError on logits of different shapes and on one class.
    """
    check_logits(student_logits, teacher_logits, least=2)
    student, teacher = full_precision(student_logits) / temperature, full_precision(teacher_logits) / temperature
    expected = label_or_not(teacher, teacher.argmax(1))
    confidence = F.kl_div(label_or_not(student, labels), expected, reduction="none", log_target=True).sum(1)
    kept = ranked_below(teacher_logits, labels)
    log_q_s, log_q_t = _among(student, kept), _among(teacher, kept)
    shares = log_q_t.masked_fill(~kept, -torch.inf).exp()
    return confidence, (shares * (log_q_t - log_q_s)).sum(1)


def ranked_below(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """bool [B, C]: the classes whose logit is smaller than the label's."""
    return teacher_logits < teacher_logits.gather(1, labels[:, None])


def _among(logits: Tensor, kept: Tensor) -> Tensor:
    """The log-distribution over the kept classes; finite at the others, too, and if nothing is kept."""
    kept = kept | ~kept.any(1, keepdim=True)
    return logits - logits.masked_fill(~kept, -torch.inf).logsumexp(1, keepdim=True)


class RefinedLogits(Method):
    """ce_weight CE + T^2 (alpha confidence + beta correlation); these two rise over the first `warmup_epochs`.

    The defaults are the one published command; the authors print no values for other pairs.
    """

    title = "RLD"

    alpha: Weight = 1.0
    beta: Weight = 8.0
    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0
    warmup_epochs: NonNegative = 20.0

    def build(self, context: Context) -> None:
        check_logits(context.student_outputs.logits, context.teacher_outputs.logits, least=2)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        logits = student(view).logits
        divergences = refined_divergences(logits, teacher(view).logits, batch.labels, self.temperature)
        confidence, correlation = (each.mean() for each in divergences)
        weight = self.temperature**2 * warmup(epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * cross_entropy(logits, batch.labels),
            "confidence": weight * self.alpha * confidence,
            "correlation": weight * self.beta * correlation,
        }

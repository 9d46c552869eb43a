"""Supervised contrastive distillation weighted by the teacher's logits (SupCRD), and its hybrid with cross-entropy.

Anchors i are the student's embeddings s_i of a batch's views, keys j the teacher's embeddings t_j of the same views.
P(i) are the keys with the label of i, its own image included, N(i) the others. With e_ij = e^{<s_i, t_j>/T}, the
teacher's probabilities p_i, the pull a_i = alpha p_i(y_i) and the push b_ij = beta (1 - p_i(y_j)):

    in:   L_i = -log(a_i sum_P e_ij / (a_i sum_P e_ij + sum_N b_ij e_ij))
    out:  L_i = -a_i/|P| sum_P [<s_i, t_j>/T - log(sum_P e_ij + sum_N b_ij e_ij)]
    hybrid:  lam L + (1 - lam) CE

Both are means over anchors. Form "in" depends only on beta / alpha. There, a teacher unsure of the label raises the
image's weight: its positives must come nearer for the same loss. In form "out" it lowers the weight. A one-hot teacher
with alpha = beta = 1 gives SupCon between the two networks (Khosla et al. 2020), in form "in" up to log |P(i)|.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.heads import ProjectionHead
from kdhelpers.methods.parts.ranges import ContrastTemperature, Fraction, NonNegative, Range, Width, check_range
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision
from kdhelpers.methods.supcon import Form, check_form, masked_logsumexp

MIN_ALPHA = 1e-6  # its logarithm is taken
SHAPES = "student_embedding [B, V, d], teacher_embedding [B, V, d], teacher_logits [B, V, C], labels [B]"


def supcrd_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 12.0,
    temperature: float = 0.07,
    form: Form = "in",
) -> Tensor:
    """The loss above, a scalar: mean over the B V anchors.

    student_embedding, teacher_embedding [B, V, d] with unit rows, teacher_logits [B, V, C], any float dtype (computed
    in float32, or float64 for float64 input); labels int64 [B]. It is computed in log space: a teacher that gives the
    label no probability leaves loss and gradient finite. Form "in" gives 0 if beta is 0 or the batch has one class.
    Raises ValueError for other shapes, an unknown form, alpha not above 0 and a negative beta.
    """
    check_form(form)
    check_range("alpha", alpha, MIN_ALPHA)
    check_range("beta", beta, 0)
    check_shapes(SHAPES, student_embedding, teacher_embedding, teacher_logits, labels)
    labels = labels.repeat_interleave(student_embedding.shape[1])
    log_p = full_precision(teacher_logits).flatten(0, 1).log_softmax(1)
    same = labels[:, None] == labels
    with torch.autocast(student_embedding.device.type, enabled=False):
        student, teacher = (full_precision(e).flatten(0, 1) for e in (student_embedding, teacher_embedding))
        scores = student @ teacher.T / temperature
    log_pull = math.log(alpha) + log_p.gather(1, labels[:, None])[:, 0]
    positive = masked_logsumexp(scores, same)
    negative = masked_logsumexp(_finite(scores + _log_push(log_p, beta)[:, labels]), ~same)
    if form == "in":
        return F.softplus(negative - log_pull - positive).mean()
    losses = torch.logaddexp(positive, negative) - scores.masked_fill(~same, 0).sum(1) / same.sum(1)
    return (log_pull.exp() * losses).mean()


def _log_push(log_p: Tensor, beta: float) -> Tensor:
    """log(beta (1 - p)), [n, C]; the least finite number for a push of 0."""
    return _finite((-log_p.expm1()).log() + (math.log(beta) if beta else -math.inf))


def _finite(values: Tensor) -> Tensor:
    return values.clamp(min=torch.finfo(values.dtype).min)


class SupervisedContrastiveDistillation(Method):
    """lam SupCRD + (1 - lam) CE, on two independent views; CE is of the first view.

    lam 1 is pure SupCRD, whose classifier is a linear probe fitted after training; lam 0 is cross-entropy bit for bit.
    The study compares both forms and both teacher heads: the teacher's projection head is "co_trained" with the
    student's, or "frozen_random", as published, without a training signal of its own.
    """

    title = "SupCRD"
    views = 2
    reads = ("logits", "embedding")

    alpha: Annotated[float, Range(MIN_ALPHA)] = 1.0
    beta: NonNegative = 12.0
    temperature: ContrastTemperature = 0.07
    lam: Fraction = 1.0
    form: Form = "in"
    teacher_head: Literal["co_trained", "frozen_random"] = "co_trained"
    dim: Width = 128

    @property
    def trains_classifier(self) -> bool:
        return self.lam < 1

    def build(self, context: Context) -> None:
        trained = self.teacher_head == "co_trained"
        self.student_head = ProjectionHead(context.student_outputs.embedding.shape[1], self.dim)
        self.teacher_head = ProjectionHead(context.teacher_outputs.embedding.shape[1], self.dim)
        self.teacher_head.requires_grad_(trained)  # the head takes the place of the option of this name

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        views = batch.views if self.lam else batch.views[:1]
        student_out = [student(view) for view in views]
        terms = {}
        if self.lam < 1:
            terms["ce"] = (1 - self.lam) * cross_entropy(student_out[0].logits, batch.labels)
        if self.lam:
            terms["supcrd"] = self.lam * self._contrast(student_out, [teacher(view) for view in views], batch.labels)
        return terms

    def _contrast(self, student_out: list, teacher_out: list, labels: Tensor) -> Tensor:
        student = torch.stack([self.student_head(out.embedding) for out in student_out], 1)
        teacher = torch.stack([self.teacher_head(out.embedding) for out in teacher_out], 1)
        logits = torch.stack([out.logits for out in teacher_out], 1)
        gathered = (gather(values) for values in (student, teacher, logits, labels))
        return supcrd_loss(*gathered, self.alpha, self.beta, self.temperature, self.form)

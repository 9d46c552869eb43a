"""Supervised contrastive distillation weighted by the teacher's logits (SupCRD), and its hybrid with cross-entropy.

Anchors i are the student's embeddings s_i of a batch's views, keys j the teacher's t_j of the same views; P(i) are the
keys with i's label, its own image's among them, N(i) the others. With e_ij = e^{<s_i, t_j>/T}, the teacher's
probabilities p_i, the pull a_i = alpha p_i(y_i) and the push b_ij = beta (1 - p_i(y_j)):

    in:   L_i = -log(a_i sum_P e_ij / (a_i sum_P e_ij + sum_N b_ij e_ij))
    out:  L_i = -a_i/|P| sum_P [<s_i, t_j>/T - log(sum_P e_ij + sum_N b_ij e_ij)]
    hybrid:  lam L + (1 - lam) CE

Both are the mean over anchors. In form "in" only beta / alpha matters, and an image whose label the teacher doubts
weighs more: its positives have to be pulled nearer for the same loss. In form "out" it weighs less. A one-hot teacher
with alpha = beta = 1 gives SupCon between the two networks (Khosla et al. 2020), in form "in" up to log |P(i)|.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method, check_range, full_precision
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.heads import ProjectionHead
from kdhelpers.methods.supcon import check_form, check_views, masked_logsumexp


def supcrd_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 12.0,
    temperature: float = 0.07,
    form: Literal["in", "out"] = "in",
) -> Tensor:
    """The loss above, a scalar: mean over the B V anchors.

    student_embedding, teacher_embedding [B, V, d] with unit rows, teacher_logits [B, V, C], any float dtype (computed
    in float32, or float64 for float64 input); labels int64 [B]. In log space throughout: a teacher that gives the
    label no probability leaves loss and the student's gradient finite. Form "in" gives 0 where beta is 0 or the batch
    has one class. Raises ValueError for other shapes, an unknown form, alpha not above 0 and a negative beta.
    """
    check_form(form)
    _check(student_embedding, teacher_embedding, teacher_logits, labels, alpha, beta)
    views = student_embedding.shape[1]
    owner = labels.repeat_interleave(views)
    log_p = full_precision(teacher_logits).flatten(0, 1).log_softmax(1)
    same = owner[:, None] == owner
    with torch.autocast(student_embedding.device.type, enabled=False):
        student, teacher = (full_precision(e).flatten(0, 1) for e in (student_embedding, teacher_embedding))
        scores = student @ teacher.T / temperature
    log_pull = math.log(alpha) + log_p.gather(1, owner[:, None])[:, 0]
    positive = masked_logsumexp(scores, same)
    negative = masked_logsumexp(_floored(scores + _log_push(log_p, beta)[:, owner]), ~same)
    if form == "in":
        return F.softplus(negative - log_pull - positive).mean()
    every = torch.logaddexp(positive, negative)
    attracted = every - scores.masked_fill(~same, 0).sum(1) / same.sum(1)
    return (log_pull.exp() * attracted).mean()


def _log_push(log_p: Tensor, beta: float) -> Tensor:
    """log(beta (1 - p)), [n, C]; the least finite number where nothing is pushed."""
    return _floored((-log_p.expm1()).log() + (math.log(beta) if beta else -math.inf))


def _floored(values: Tensor) -> Tensor:
    return values.clamp(min=torch.finfo(values.dtype).min)


def _check(student: Tensor, teacher: Tensor, logits: Tensor, labels: Tensor, alpha: float, beta: float) -> None:
    check_views("student_embedding", student, labels)
    if teacher.shape != student.shape:
        found = f"teacher_embedding {tuple(teacher.shape)}, student_embedding {tuple(student.shape)}"
        raise ValueError(f"{found}: must have one shape [B, V, d]; project both to one dimension")
    if logits.ndim != 3 or logits.shape[:2] != student.shape[:2]:
        raise ValueError(
            f"teacher_logits: {tuple(logits.shape)}; must be [B, V, C] = {tuple(student.shape[:2])} + (C,)"
        )
    check_weights(alpha, beta)


def check_weights(alpha: float, beta: float) -> None:
    check_range("alpha", alpha, 1e-6)
    check_range("beta", beta, 0)


class SupervisedContrastiveDistillation(Method):
    """lam SupCRD + (1 - lam) CE, on two independent views; CE is of the first, the view that other methods see.

    lam 1 is pure SupCRD, whose classifier is a linear probe trained afterwards; lam 0 is cross-entropy bit for bit.
    teacher_head: the teacher's projection head is "co_trained" with the student's, or "frozen_random", as published:
    it has no training signal of its own.
    """

    title = "SupCRD"
    views = 2
    reads = ("logits", "embedding")

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 12.0,
        temperature: float = 0.07,
        lam: float = 1.0,
        form: Literal["in", "out"] = "in",
        teacher_head: Literal["co_trained", "frozen_random"] = "co_trained",
        dim: int = 128,
    ):
        super().__init__()
        check_weights(alpha, beta)
        check_range("temperature", temperature, 0.001, 100)
        check_range("lam", lam, 0, 1)
        check_range("dim", dim, 1, 65536)
        self.alpha, self.beta, self.temperature, self.lam = alpha, beta, temperature, lam
        self.form, self.head_is_trained, self.dim = form, teacher_head == "co_trained", dim
        self.trains_classifier = lam < 1

    def build(self, context: Context) -> None:
        self.student_head = ProjectionHead(context.student_outputs.embedding.shape[1], self.dim)
        self.teacher_head = ProjectionHead(context.teacher_outputs.embedding.shape[1], self.dim)
        self.teacher_head.requires_grad_(self.head_is_trained)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        views = batch.views if self.lam else batch.views[:1]
        seen = [student(view) for view in views]
        terms = {}
        if self.lam < 1:
            terms["ce"] = (1 - self.lam) * F.cross_entropy(full_precision(seen[0].logits), batch.labels)
        if self.lam:
            terms["supcrd"] = self.lam * self._contrast(seen, [teacher(view) for view in views], batch.labels)
        return terms

    def _contrast(self, seen: list, shown: list, labels: Tensor) -> Tensor:
        student = torch.stack([self.student_head(outputs.embedding) for outputs in seen], 1)
        teacher = torch.stack([self.teacher_head(outputs.embedding) for outputs in shown], 1)
        logits = torch.stack([outputs.logits for outputs in shown], 1)
        together = (gather(values) for values in (student, teacher, logits, labels))
        return supcrd_loss(*together, self.alpha, self.beta, self.temperature, self.form)

"""Contrastive representation distillation (CRD): noise-contrastive estimation against memory banks of embeddings.

Every training image has a row in the student's bank and one in the teacher's. With g the embedding of image i in one
network, v the bank of the other and K negatives j of other classes, row j scores P_j = e^{<g, v_j>/T} / Z and

    h_j = P_j / (P_j + K/N + 1e-7),    L = -log h_i - sum_j log(K/N / (P_j + K/N + 1e-7)),    mean over the batch,

and the two directions are added. Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020, with the
1e-7 and the normaliser Z of its published code (Z = N times the mean e^{<g, v>/T} of the first batch).
"""

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.logit_matching import kd_loss
from kdhelpers.methods.parts.distributed import mean_over_ranks
from kdhelpers.methods.parts.heads import UnitProjection
from kdhelpers.methods.parts.memory_bank import MemoryBank
from kdhelpers.methods.parts.ranges import Count, Range, Temperature, Weight, Width
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision

EPSILON = 1e-7  # of the published code
SHAPES = (
    "student_embedding [B, d], teacher_embedding [B, d], student_bank [N, d], teacher_bank [N, d], index [B], "
    "negatives [B, K]"
)


def crd_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    student_bank: Tensor,
    teacher_bank: Tensor,
    index: Tensor,
    negatives: Tensor,
    temperature: float = 0.07,
    student_normalizer: Tensor | float | None = None,
    teacher_normalizer: Tensor | float | None = None,
) -> Tensor:
    """The loss above in both directions, a scalar: summed over negatives, mean over the batch.

    Embeddings [B, d] and banks [N, d] have unit rows; index [B] holds the positive's row in the banks, negatives [B, K]
    the negatives' rows. student_normalizer is the Z of the scores <student embedding, teacher bank>, teacher_normalizer
    of <teacher embedding, student bank>; None takes this batch's own. Gradients reach the embeddings only. Computed in
    float32 (float64 for float64 embeddings). Raises ValueError on shapes that do not fit.
    """
    check_shapes(SHAPES, student_embedding, teacher_embedding, student_bank, teacher_bank, index, negatives)
    if negatives.shape[1] == 0:
        raise ValueError(f"negatives {tuple(negatives.shape)}: must be [B, K] with K of at least 1")
    rows = torch.cat([index[:, None], negatives], 1)
    student_loss, _ = contrast(student_embedding, teacher_bank, rows, temperature, student_normalizer)
    teacher_loss, _ = contrast(teacher_embedding, student_bank, rows, temperature, teacher_normalizer)
    return student_loss + teacher_loss


def contrast(
    embedding: Tensor, bank: Tensor, rows: Tensor, temperature: float, normalizer: Tensor | float | None = None
) -> tuple[Tensor, Tensor]:
    """One direction: (the loss, this batch's normaliser, without gradient).

    rows [B, 1 + K]: the positive's row in `bank`, then the negatives' rows. A normaliser of 0 is not yet set.
    """
    embedding = full_precision(embedding)
    if not isinstance(normalizer, Tensor):
        normalizer = torch.full((), normalizer or 0.0, device=embedding.device)  # a fill: nothing waits for the device
    return _Contrast.apply(embedding, bank.to(embedding.dtype), rows, temperature, normalizer)


class _Contrast(torch.autograd.Function):
    """Loss and gradient in two matrix products with the whole bank.

    Gathering the B x K rows, as is usual, moves K d numbers per image through memory; the product with all N rows
    does three times the arithmetic at K = N / 3, then picks scalars. -log h_i is softplus(-x_i) and -log(1 - h_j) is
    softplus(x_j) + log(1 + 1e-7 N/K) for x = <g, v> / T - log Z - log(K/N + 1e-7): a logistic regression, which
    cannot overflow, with gradient sigmoid. The forward pass computes it: the backward pass needs only a [B, d] tensor.
    Under bf16 autocast the products take bf16 operands, as the networks do; exponentials and sums stay in float32.
    """

    @staticmethod
    def forward(ctx, embedding, bank, rows, temperature, normalizer):
        (batch, negatives), count = (len(rows), rows.shape[1] - 1), len(bank)
        operand = _operand_dtype(embedding)
        bank = bank.to(operand)
        with torch.autocast(embedding.device.type, enabled=False):
            scores = embedding.to(operand) @ bank.T
            x = scores.gather(1, rows).to(embedding.dtype).div_(temperature)
            batch_normalizer = mean_over_ranks(count / x.numel() * x.exp().sum())
            share = negatives / count
            z = torch.where(normalizer > 0, normalizer, batch_normalizer).to(x.dtype)
            x -= z.log() + math.log(share + EPSILON)
            x[:, 0].neg_()  # of the positive, x -> -x
            loss = _softplus_sum(x) / batch + negatives * math.log1p(EPSILON / share)
            grad = x.sigmoid_().div_(temperature * batch)
            grad[:, 0].neg_()
            scores.zero_().scatter_add_(1, rows, grad.to(operand))
            ctx.save_for_backward((scores @ bank).to(embedding.dtype))
        ctx.mark_non_differentiable(batch_normalizer)
        return loss, batch_normalizer

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_of_loss, _):
        (grad,) = ctx.saved_tensors
        return grad_of_loss * grad, None, None, None, None


def _softplus_sum(x: Tensor) -> Tensor:
    """Sum of softplus(x) for any x, by log: torch's log1p takes ten times as long unless e^x is small."""
    return x.clamp(min=0).sum() + x.abs().neg_().exp_().add_(1).log_().sum()


def _operand_dtype(embedding: Tensor) -> torch.dtype:
    device = embedding.device.type
    bf16 = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) is torch.bfloat16
    return torch.bfloat16 if bf16 else embedding.dtype


class ContrastiveDistillation(Method):
    """ce_weight CE + crd_weight CRD + kd_weight KD; kd_weight 1 is the benchmark's row CRD+KD.

    Both projection heads (linear, then unit length) are trained. The first batch sets the normalisers.
    """

    title = "CRD"
    reads = ("logits", "embedding")
    retired = {"positive": "exact", "normalizer": "frozen"}

    temperature: Annotated[float, Range(0.02, 100)] = 0.07  # e^{1/T} stays within float32
    ce_weight: Weight = 1.0
    crd_weight: Weight = 0.8
    kd_weight: Weight = 0.0
    kd_temperature: Temperature = 4.0
    negatives: Count = 16384
    dim: Width = 128
    bank_momentum: Annotated[float, Range(0, 0.9999)] = 0.5

    def build(self, context: Context) -> None:
        self.student_head = UnitProjection(context.student_outputs.embedding.shape[1], self.dim)
        self.teacher_head = UnitProjection(context.teacher_outputs.embedding.shape[1], self.dim)
        self.bank = MemoryBank(context.labels, context.num_classes, self.dim, self.negatives)
        self.register_buffer("student_normalizer", torch.zeros(()))
        self.register_buffer("teacher_normalizer", torch.zeros(()))

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out, teacher_out = student(view), teacher(view)
        terms = {
            "ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels),
            "crd": self.crd_weight * self._crd(student_out.embedding, teacher_out.embedding, batch),
        }
        if self.kd_weight:
            terms["kd"] = self.kd_weight * kd_loss(student_out.logits, teacher_out.logits, self.kd_temperature)
        return terms

    def _crd(self, student: Tensor, teacher: Tensor, batch) -> Tensor:
        student, teacher = self.student_head(student), self.teacher_head(teacher)
        rows = torch.cat([batch.index[:, None], self.bank.other_classes(batch.labels)], 1)
        loss = 0
        for embedding, bank, normalizer in (
            (student, self.bank.teacher, self.student_normalizer),
            (teacher, self.bank.student, self.teacher_normalizer),
        ):
            one_direction, batch_normalizer = contrast(embedding, bank, rows, self.temperature, normalizer)
            self._set_once(normalizer, batch_normalizer)
            loss = loss + one_direction
        self.bank.update(batch.index, student, teacher, self.bank_momentum)
        return loss

    @torch.no_grad()
    def _set_once(self, normalizer: Tensor, batch_normalizer: Tensor) -> None:
        normalizer.copy_(torch.where(normalizer > 0, normalizer, batch_normalizer))

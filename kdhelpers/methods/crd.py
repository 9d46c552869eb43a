"""Contrastive representation distillation (CRD): noise-contrastive estimation against memory banks of embeddings.

Every training image has a row in the student's bank and one in the teacher's. With g the embedding of image i in one
network, v the bank of the other and K negatives j of other classes, row j scores P_j = e^{<g, v_j>/T} / Z and

    h_j = P_j / (P_j + K/N + 1e-7),    L = -log h_i - sum_j log(K/N / (P_j + K/N + 1e-7)),    mean over the batch,

and the two directions are added. Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020, with the
1e-7 and the normaliser Z of its published code (Z = N times the mean e^{<g, v>/T} of the first batch).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdhelpers.methods.base import Context, Method, check_range, check_weights, full_precision
from kdhelpers.methods.logit_matching import kd_loss
from kdhelpers.methods.parts.distributed import mean_over_ranks
from kdhelpers.methods.parts.heads import UnitProjection
from kdhelpers.methods.parts.memory_bank import MemoryBank

EPSILON = 1e-7  # of the published code
KEPT = 0.99  # of the normaliser, per batch, with normalizer="ema"


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

    Embeddings [B, d] and banks [N, d] have unit rows; index [B] is the positive's row in the banks, negatives [B, K]
    those of the negatives. student_normalizer is the Z of the scores <student embedding, teacher bank>,
    teacher_normalizer of <teacher embedding, student bank>; None takes this batch's own. Gradients reach the embeddings
    only. Computed in float32 (float64 for float64 embeddings). Raises ValueError on shapes that do not fit.
    """
    _check(student_embedding, teacher_embedding, student_bank, teacher_bank, index, negatives)
    columns = torch.cat([index[:, None], negatives], 1)
    of_student, _ = contrast(student_embedding, teacher_bank, columns, temperature, student_normalizer)
    of_teacher, _ = contrast(teacher_embedding, student_bank, columns, temperature, teacher_normalizer)
    return of_student + of_teacher


def contrast(
    embedding: Tensor, bank: Tensor, columns: Tensor, temperature: float, normalizer: Tensor | float | None = None
) -> tuple[Tensor, Tensor]:
    """One direction: (the loss, the normaliser that this batch alone gives, without gradient).

    columns [B, 1 + K]: the positive's row in `bank`, then the negatives'. A normaliser of 0 means none yet.
    """
    embedding = full_precision(embedding)
    if not isinstance(normalizer, Tensor):
        normalizer = torch.full((), normalizer or 0.0, device=embedding.device)  # a fill: nothing waits for the device
    return _Contrast.apply(embedding, bank.to(embedding.dtype), columns, temperature, normalizer)


class _Contrast(torch.autograd.Function):
    """Loss and gradient in two matrix products with the whole bank.

    Gathering the B x K rows, as is usual, moves K d numbers per image through memory; the product with all N rows
    does three times the arithmetic at K = N / 3, then picks scalars. -log h_i is softplus(-x_i) and -log(1 - h_j) is
    softplus(x_j) + log(1 + 1e-7 N/K) for x = <g, v> / T - log Z - log(K/N + 1e-7): a logistic regression, which
    cannot overflow, with gradient sigmoid. It is worked out in forward, so only a [B, d] tensor waits for backward.
    Under bf16 autocast the products take bf16 operands, as the networks do; exponentials and sums stay in float32.
    """

    @staticmethod
    def forward(ctx, embedding, bank, columns, temperature, normalizer):
        (batch, negatives), rows = (len(columns), columns.shape[1] - 1), len(bank)
        operand = _operand_dtype(embedding)
        bank = bank.to(operand)
        with torch.autocast(embedding.device.type, enabled=False):
            everything = embedding.to(operand) @ bank.T
            x = everything.gather(1, columns).to(embedding.dtype).div_(temperature)
            own = rows / x.numel() * x.exp().sum()
            share = negatives / rows
            x -= torch.where(normalizer > 0, normalizer, own).to(x.dtype).log() + math.log(share + EPSILON)
            x[:, 0].neg_()  # of the positive, x -> -x
            loss = _softplus_sum(x) / batch + negatives * math.log1p(EPSILON / share)
            slope = x.sigmoid_().div_(temperature * batch)
            slope[:, 0].neg_()
            everything.zero_().scatter_add_(1, columns, slope.to(operand))
            ctx.save_for_backward((everything @ bank).to(embedding.dtype))
        ctx.mark_non_differentiable(own)
        return loss, own

    @staticmethod
    @once_differentiable
    def backward(ctx, of_loss, _):
        (slope,) = ctx.saved_tensors
        return of_loss * slope, None, None, None, None


def _softplus_sum(x: Tensor) -> Tensor:
    """Sum of softplus(x) for any x, by log: torch's log1p takes ten times as long where e^x is not small."""
    return x.clamp(min=0).sum() + x.abs().neg_().exp_().add_(1).log_().sum()


def _operand_dtype(embedding: Tensor) -> torch.dtype:
    device = embedding.device.type
    bf16 = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) is torch.bfloat16
    return torch.bfloat16 if bf16 else embedding.dtype


def _check(student, teacher, student_bank, teacher_bank, index, negatives) -> None:
    shapes = {
        "teacher_embedding": (teacher.shape, student.shape),
        "student_bank": (student_bank.shape[1:], teacher.shape[1:]),
        "teacher_bank": (teacher_bank.shape, student_bank.shape),
        "index": (index.shape, student.shape[:1]),
        "negatives": (negatives.shape[:1], student.shape[:1]),
    }
    for name, (found, expected) in shapes.items():
        if found != expected:
            raise ValueError(
                f"{name}: {tuple(found)} does not fit {tuple(expected)}; embeddings are [B, d], banks [N, d], "
                "index [B], negatives [B, K]"
            )
    if negatives.ndim != 2 or negatives.shape[1] == 0:
        raise ValueError(f"negatives: {tuple(negatives.shape)}; must be [B, K] with K of at least 1")


class ContrastiveDistillation(Method):
    """ce_weight CE + crd_weight CRD + kd_weight KD (kd_weight 1 is the benchmark's CRD+KD).

    Both projection heads (linear, then unit length) are trained. positive: "exact" is the same image, "relax" any of
    its class. normalizer: "frozen" after the first batch, as the published figures were made, or "ema" (0.99 a batch).
    """

    reads = ("logits", "embedding")

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        ce_weight: float = 1.0,
        crd_weight: float = 0.8,
        kd_weight: float = 0.0,
        kd_temperature: float = 4.0,
        negatives: int = 16384,
        dim: int = 128,
        bank_momentum: float = 0.5,
        positive: Literal["exact", "relax"] = "exact",
        normalizer: Literal["frozen", "ema"] = "frozen",
    ):
        super().__init__()
        check_range("temperature", temperature, 0.02, 100)  # e^{1/T} stays within float32
        check_range("kd_temperature", kd_temperature, 0.01, 1000)
        check_weights(ce_weight=ce_weight, crd_weight=crd_weight, kd_weight=kd_weight)
        check_range("negatives", negatives, 1)
        check_range("dim", dim, 1, 65536)
        check_range("bank_momentum", bank_momentum, 0, 0.9999)
        self.temperature, self.kd_temperature, self.positive = temperature, kd_temperature, positive
        self.ce_weight, self.crd_weight, self.kd_weight = ce_weight, crd_weight, kd_weight
        self.negatives, self.dim, self.bank_momentum = negatives, dim, bank_momentum
        self.kept = 1.0 if normalizer == "frozen" else KEPT

    def build(self, context: Context) -> None:
        self.student_head = UnitProjection(context.student_outputs.embedding.shape[1], self.dim)
        self.teacher_head = UnitProjection(context.teacher_outputs.embedding.shape[1], self.dim)
        self.bank = MemoryBank(context.labels, context.num_classes, self.dim, self.negatives)
        self.register_buffer("student_normalizer", torch.zeros(()))
        self.register_buffer("teacher_normalizer", torch.zeros(()))

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        ours, theirs = student(view), teacher(view)
        terms = {
            "ce": self.ce_weight * F.cross_entropy(full_precision(ours.logits), batch.labels),
            "crd": self.crd_weight * self._crd(ours.embedding, theirs.embedding, batch),
        }
        if self.kd_weight:
            terms["kd"] = self.kd_weight * kd_loss(ours.logits, theirs.logits, self.kd_temperature)
        return terms

    def _crd(self, student: Tensor, teacher: Tensor, batch) -> Tensor:
        student, teacher = self.student_head(student), self.teacher_head(teacher)
        positive = batch.index if self.positive == "exact" else self.bank.same_class(batch.labels)
        columns = torch.cat([positive[:, None], self.bank.other_classes(batch.labels)], 1)
        loss = 0
        for embedding, bank, normalizer in (
            (student, self.bank.teacher, self.student_normalizer),
            (teacher, self.bank.student, self.teacher_normalizer),
        ):
            one_direction, own = contrast(embedding, bank, columns, self.temperature, normalizer)
            self._follow(normalizer, own)
            loss = loss + one_direction
        self.bank.update(batch.index, student, teacher, self.bank_momentum)
        return loss

    @torch.no_grad()
    def _follow(self, normalizer: Tensor, own: Tensor) -> None:
        """The first batch sets the normaliser; with "ema" every later one moves it."""
        own = mean_over_ranks(own)
        normalizer.copy_(torch.where(normalizer > 0, self.kept * normalizer + (1 - self.kept) * own, own))

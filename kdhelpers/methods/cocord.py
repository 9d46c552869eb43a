"""Contrastive consistent representation distillation (CoCoRD): contrast with a queue of teacher keys, and agreement
with a slow student.

An image has three views, x_s, x_s' and x_t. With f(x) the student's embedding through a projector, h a predictor on
top of it, slow(x) a moving average of f, t(x) the teacher's embedding through a projector of its own, unit vectors
q = norm(f(x_s)) and k = norm(t(x_t)), and the queue k_1..k_K of the teacher's latest keys before this batch,

    L_contrast = -log(e^{<q, k>/T} / (e^{<q, k>/T} + sum_j e^{<q, k_j>/T}))
    L_prediction = 2 - 2 cos(h(x_s), slow(x_s')) + 2 - 2 cos(h(x_s'), slow(x_s))
    L = contrast_weight L_contrast + ce_weight CE(x_s) + prediction_weight L_prediction + kd_weight KD(x_s)

all of them means over the batch. Fu, Yang, Yang: Contrastive Consistent Representation Distillation, BMVC 2023: keys
stay consistent because the networks that make them move slowly, where CRD averages the stored rows themselves.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdhelpers.methods.base import Context, Method, check_range, check_weights, full_precision
from kdhelpers.methods.logit_matching import kd_loss
from kdhelpers.methods.parts.ema import ema_update
from kdhelpers.methods.parts.heads import mlp_head
from kdhelpers.methods.parts.key_queue import KeyQueue


def cocord_contrast_loss(
    student_embedding: Tensor, teacher_embedding: Tensor, queue: Tensor, temperature: float = 0.1
) -> Tensor:
    """L_contrast above, a scalar: mean over the batch.

    student_embedding q and teacher_embedding k [B, d], queue [K, d], all with unit rows, any float dtype (computed in
    float32, or float64 for a float64 student). Where q is as near to all rows as to its key, the loss is log(1 + K).
    Gradients reach student_embedding only, and are worked out at once: the queue may be overwritten before the
    backward pass. Raises ValueError on shapes that do not fit.
    """
    if teacher_embedding.shape != student_embedding.shape or queue.shape[1:] != student_embedding.shape[1:]:
        found = (tuple(each.shape) for each in (student_embedding, teacher_embedding, queue))
        raise ValueError(
            "student_embedding {}, teacher_embedding {}, queue {}: must be [B, d], [B, d] and [K, d]; project both "
            "networks to the queue's dimension".format(*found)
        )
    student = full_precision(student_embedding)
    return _Contrast.apply(student, teacher_embedding.to(student.dtype), queue.to(student.dtype), temperature)


class _Contrast(torch.autograd.Function):
    """Loss and gradient together, so that a [B, d] tensor waits for backward in place of a clone of the queue."""

    @staticmethod
    def forward(ctx, student, teacher, queue, temperature):
        with torch.autocast(student.device.type, enabled=False):
            own = (student * teacher).sum(1, keepdim=True)
            log_p = torch.cat([own, student @ queue.T], 1).div_(temperature).log_softmax(1)
            loss = -log_p[:, 0].mean()
            slope = log_p.exp_().div_(temperature * len(log_p))
            slope[:, 0] -= 1 / (temperature * len(log_p))
            ctx.save_for_backward(slope[:, :1] * teacher + slope[:, 1:] @ queue)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, of_loss):
        (slope,) = ctx.saved_tensors
        return of_loss * slope, None, None, None


def cocord_prediction_loss(student_prediction: Tensor, slow_embedding: Tensor) -> Tensor:
    """L_prediction above, a scalar in [0, 8]: summed over the two views, mean over the batch.

    student_prediction [B, 2, d] are h(x_s) and h(x_s'), slow_embedding [B, 2, d] slow(x_s) and slow(x_s'), in this
    order and of any length: each prediction is compared with the slow student on the other view. Any float dtype
    (computed in float32, or float64 for float64 input). Raises ValueError on shapes that do not fit.
    """
    if student_prediction.shape != slow_embedding.shape or student_prediction.shape[1:2] != (2,):
        raise ValueError(
            f"student_prediction {tuple(student_prediction.shape)} and slow_embedding {tuple(slow_embedding.shape)}: "
            "must have one shape [B, 2, d], both views of an image side by side"
        )
    prediction, target = (F.normalize(full_precision(each), dim=2) for each in (student_prediction, slow_embedding))
    return (2 - 2 * (prediction * target.flip(1)).sum(2)).sum(1).mean()


class CoCoRD(Method):
    """ce_weight CE + contrast_weight contrast + prediction_weight prediction (+ kd_weight KD), on three views.

    The slow student (backbone and projector) is an average of the student with slow_momentum; the teacher's projector
    one of the student's with teacher_momentum where both embeddings have one width, else it is random and stays so.
    Averages move before the optimiser's step. All of them normalise by the batch at hand (BatchNorm in train mode), as
    in the published code: running statistics are not averaged, and would be those of other weights.

    KD compares both networks on x_s, the student's own view: the teacher is asked a second time for it alone.
    """

    title = "CoCoRD"
    views = 3
    reads = ("logits", "embedding")

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        ce_weight: float = 1.0,
        contrast_weight: float = 1.0,
        prediction_weight: float = 4.0,
        kd_weight: float = 0.0,
        kd_temperature: float = 4.0,
        queue_size: int = 2048,
        hidden_dim: int = 2048,
        dim: int = 2048,
        predictor_dim: int = 512,
        slow_momentum: float = 0.9,
        teacher_momentum: float = 0.999,
    ):
        super().__init__()
        check_range("temperature", temperature, 0.001, 100)
        check_range("kd_temperature", kd_temperature, 0.01, 1000)
        check_weights(
            ce_weight=ce_weight,
            contrast_weight=contrast_weight,
            prediction_weight=prediction_weight,
            kd_weight=kd_weight,
        )
        check_range("queue_size", queue_size, 1)
        for name, width in {"hidden_dim": hidden_dim, "dim": dim, "predictor_dim": predictor_dim}.items():
            check_range(name, width, 1, 65536)
        check_range("slow_momentum", slow_momentum, 0, 1)
        check_range("teacher_momentum", teacher_momentum, 0, 1)
        self.temperature, self.kd_temperature, self.queue_size = temperature, kd_temperature, queue_size
        self.ce_weight, self.contrast_weight = ce_weight, contrast_weight
        self.prediction_weight, self.kd_weight = prediction_weight, kd_weight
        self.hidden_dim, self.dim, self.predictor_dim = hidden_dim, dim, predictor_dim
        self.slow_momentum, self.teacher_momentum = slow_momentum, teacher_momentum
        self.trains_classifier = bool(ce_weight or kd_weight)

    def build(self, context: Context) -> None:
        width = context.student_outputs.embedding.shape[1]
        teacher_width = context.teacher_outputs.embedding.shape[1]
        self.projector = mlp_head(width, self.hidden_dim, self.dim)
        self.predictor = mlp_head(self.dim, self.predictor_dim, self.dim)
        self.slow = context.copy_student()
        self.slow_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.teacher_follows = width == teacher_width
        start = self.projector if self.teacher_follows else mlp_head(teacher_width, self.hidden_dim, self.dim)
        self.teacher_projector = copy.deepcopy(start).requires_grad_(False)
        self.queue = KeyQueue(self.queue_size, self.dim)
        self.student_parameters = list(context.student_parameters)  # in a list, they are not this module's own

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        self._follow()
        own, other, shown = batch.views
        outputs = student(own)
        projected = self.projector(outputs.embedding)
        terms = {}
        if self.ce_weight:
            terms["ce"] = self.ce_weight * F.cross_entropy(full_precision(outputs.logits), batch.labels)
        if self.contrast_weight:
            terms["contrast"] = self.contrast_weight * self._contrast(projected, teacher(shown).embedding)
        if self.prediction_weight:
            predicted = [self.predictor(each) for each in (projected, self.projector(student(other).embedding))]
            terms["prediction"] = self.prediction_weight * self._prediction(predicted, (own, other))
        if self.kd_weight:
            terms["kd"] = self.kd_weight * kd_loss(outputs.logits, teacher(own).logits, self.kd_temperature)
        return terms

    def _follow(self) -> None:
        slow = [*self.slow.parameters(), *self.slow_projector.parameters()]
        ema_update(slow, [*self.student_parameters, *self.projector.parameters()], self.slow_momentum)
        if self.teacher_follows:
            ema_update(self.teacher_projector.parameters(), self.projector.parameters(), self.teacher_momentum)

    def _contrast(self, projected: Tensor, shown: Tensor) -> Tensor:
        query = F.normalize(full_precision(projected), dim=1)
        with torch.no_grad():
            key = F.normalize(full_precision(self.teacher_projector(shown)), dim=1)
        loss = cocord_contrast_loss(query, key, self.queue.keys, self.temperature)
        self.queue.enqueue(key)
        return loss

    def _prediction(self, predicted: list[Tensor], views: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            slow = [self.slow_projector(self.slow(view).embedding) for view in views]
        return cocord_prediction_loss(torch.stack(predicted, 1), torch.stack(slow, 1))

"""Contrastive consistent representation distillation (CoCoRD): contrast with a queue of teacher keys, and agreement
with a slow student.

An image has three views, x_s, x_s' and x_t. f(x) is the student's embedding through a projector, h a predictor on top
of f, slow(x) a moving average of f, t(x) the teacher's embedding through another projector. With unit vectors
q = norm(f(x_s)) and k = norm(t(x_t)), and the queue k_1..k_K of the teacher's latest keys before this batch,

    L_contrast = -log(e^{<q, k>/T} / (e^{<q, k>/T} + sum_j e^{<q, k_j>/T}))
    L_prediction = 2 - 2 cos(h(x_s), slow(x_s')) + 2 - 2 cos(h(x_s'), slow(x_s))
    L = contrast_weight L_contrast + ce_weight CE(x_s) + prediction_weight L_prediction + kd_weight KD(x_s)

all of them means over the batch. Fu, Yang, Yang: Contrastive Consistent Representation Distillation, BMVC 2023: keys
stay consistent because the networks that make them move slowly, whereas CRD averages the stored rows themselves.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.logit_matching import kd_loss
from kdhelpers.methods.parts.ema import ema_update
from kdhelpers.methods.parts.heads import mlp_head
from kdhelpers.methods.parts.key_queue import KeyQueue
from kdhelpers.methods.parts.ranges import ContrastTemperature, Count, Fraction, Temperature, Weight, Width
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision


def cocord_contrast_loss(
    student_embedding: Tensor, teacher_embedding: Tensor, queue: Tensor, temperature: float = 0.1
) -> Tensor:
    """L_contrast above, a scalar: mean over the batch.

    student_embedding q and teacher_embedding k [B, d], queue [K, d], all with unit rows, any float dtype (computed in
    float32, or float64 for a float64 student). For q equally near to all rows and its key, the loss is log(1 + K).
    Gradients reach student_embedding only. The forward pass computes them: the queue may be overwritten before the
    backward pass. Raises ValueError on shapes that do not fit.
    """
    layout = "student_embedding [B, d], teacher_embedding [B, d], queue [K, d]; project both networks to the queue's d"
    check_shapes(layout, student_embedding, teacher_embedding, queue)
    student = full_precision(student_embedding)
    return _Contrast.apply(student, teacher_embedding.to(student.dtype), queue.to(student.dtype), temperature)


class _Contrast(torch.autograd.Function):
    """Loss and gradient together: the backward pass needs a [B, d] tensor instead of a clone of the queue."""

    @staticmethod
    def forward(ctx, student, teacher, queue, temperature):
        with torch.autocast(student.device.type, enabled=False):
            positive = (student * teacher).sum(1, keepdim=True)
            log_p = torch.cat([positive, student @ queue.T], 1).div_(temperature).log_softmax(1)
            loss = -log_p[:, 0].mean()
            grad = log_p.exp_().div_(temperature * len(log_p))
            grad[:, 0] -= 1 / (temperature * len(log_p))
            ctx.save_for_backward(grad[:, :1] * teacher + grad[:, 1:] @ queue)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_of_loss):
        (grad,) = ctx.saved_tensors
        return grad_of_loss * grad, None, None, None


def cocord_prediction_loss(student_prediction: Tensor, slow_embedding: Tensor) -> Tensor:
    """L_prediction above, a scalar in [0, 8]: summed over the two views, mean over the batch.

    student_prediction [B, 2, d] holds h(x_s) and h(x_s'), slow_embedding [B, 2, d] slow(x_s) and slow(x_s'), of any
    length: each prediction is compared with the slow student on the other view. Any float dtype (computed in float32,
    or float64 for float64 input). Raises ValueError on shapes that do not fit.
    """
    layout = "student_prediction [B, 2, d], slow_embedding [B, 2, d]; stack both views of an image"
    check_shapes(layout, student_prediction, slow_embedding)
    prediction, target = (F.normalize(full_precision(x), dim=2) for x in (student_prediction, slow_embedding))
    return (2 - 2 * (prediction * target.flip(1)).sum(2)).sum(1).mean()


class CoCoRD(Method):
    """ce_weight CE + contrast_weight contrast + prediction_weight prediction (+ kd_weight KD), on three views.

    The slow student (backbone and projector) averages the student with slow_momentum. The teacher's projector averages
    the student's projector with teacher_momentum if both embeddings have one width; else it stays random. Averages
    move before the optimiser's step. As in the published code, all of them normalise by the current batch (BatchNorm in
    train mode): running statistics are not averaged, and would belong to other weights.

    kd_weight 1 is the paper's row CoCoRD+KD: KD compares both networks on x_s, a second forward pass of the teacher.
    """

    title = "CoCoRD"
    views = 3
    reads = ("logits", "embedding")

    temperature: ContrastTemperature = 0.1
    ce_weight: Weight = 1.0
    contrast_weight: Weight = 1.0
    prediction_weight: Weight = 4.0
    kd_weight: Weight = 0.0
    kd_temperature: Temperature = 4.0
    queue_size: Count = 2048
    hidden_dim: Width = 2048
    dim: Width = 2048
    predictor_dim: Width = 512
    slow_momentum: Fraction = 0.9
    teacher_momentum: Fraction = 0.999

    @property
    def trains_classifier(self) -> bool:
        return bool(self.ce_weight or self.kd_weight)

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
        self.student_parameters = list(context.student_parameters)  # a list: they do not become this module's own

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        self._update_averages()
        first, second, teacher_view = batch.views
        student_out = student(first)
        projected = self.projector(student_out.embedding)
        terms = {}
        if self.ce_weight:
            terms["ce"] = self.ce_weight * cross_entropy(student_out.logits, batch.labels)
        if self.contrast_weight:
            terms["contrast"] = self.contrast_weight * self._contrast(projected, teacher(teacher_view).embedding)
        if self.prediction_weight:
            both = (projected, self.projector(student(second).embedding))
            predictions = torch.stack([self.predictor(embedding) for embedding in both], 1)
            terms["prediction"] = self.prediction_weight * self._prediction(predictions, (first, second))
        if self.kd_weight:
            terms["kd"] = self.kd_weight * kd_loss(student_out.logits, teacher(first).logits, self.kd_temperature)
        return terms

    def _update_averages(self) -> None:
        slow = [*self.slow.parameters(), *self.slow_projector.parameters()]
        ema_update(slow, [*self.student_parameters, *self.projector.parameters()], self.slow_momentum)
        if self.teacher_follows:
            ema_update(self.teacher_projector.parameters(), self.projector.parameters(), self.teacher_momentum)

    def _contrast(self, projected: Tensor, teacher_embedding: Tensor) -> Tensor:
        query = F.normalize(full_precision(projected), dim=1)
        with torch.no_grad():
            key = F.normalize(full_precision(self.teacher_projector(teacher_embedding)), dim=1)
        loss = cocord_contrast_loss(query, key, self.queue.keys, self.temperature)
        self.queue.enqueue(key)
        return loss

    def _prediction(self, predictions: Tensor, views: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            slow = torch.stack([self.slow_projector(self.slow(view).embedding) for view in views], 1)
        return cocord_prediction_loss(predictions, slow)

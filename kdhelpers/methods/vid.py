"""Variational information distillation (VID): the student's maps predict the teacher's, with a learnt variance.

mu = r(F_s), v = softplus(log_scale) + 1e-5 per channel of the teacher
L = sum over layers of the mean over images, channels and pixels of [(F_t - mu)^2 / v + log v] / 2

This is the negative log-likelihood of F_t under a normal distribution, without its constant: it bounds the mutual
information of the two maps from below. A channel that the student cannot predict gets a large v, hence little weight.
Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation for Knowledge Transfer, CVPR 2019.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.parts.paired_maps import paired_maps, same_size
from kdhelpers.methods.parts.ranges import Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision

LEAST_VARIANCE = 1e-5
FIRST_VARIANCE = 5.0
FIRST_LOG_SCALE = math.log(math.expm1(FIRST_VARIANCE - LEAST_VARIANCE))
LAYOUT = "predicted_map [B, c, h, w], teacher_map [B, c, h, w], log_scale [c]; put a regressor before predicted_map"


def vid_loss(predicted_map: Tensor, teacher_map: Tensor, log_scale: Tensor) -> Tensor:
    """The loss of one layer, mean over images, channels and pixels; a scalar, which may be negative.

    predicted_map (after the regressor), teacher_map: [B, c, h, w]; log_scale: [c], as above; any float dtype (computed
    in float32, or float64 for float64 input). Raises ValueError on shapes that do not fit.
    """
    check_shapes(LAYOUT, predicted_map, teacher_map, log_scale)
    variance = (F.softplus(full_precision(log_scale)) + LEAST_VARIANCE)[:, None, None]
    squares = (full_precision(teacher_map) - full_precision(predicted_map)).square()
    return (squares / variance + variance.log()).mean() / 2


def build_predictor(student_map: Tensor, teacher_map: Tensor) -> nn.Sequential:
    """Three 1x1 convolutions without bias from the student's to the teacher's channels, ReLU between them."""
    inputs, outputs = student_map.shape[1], teacher_map.shape[1]
    first, second, third = (nn.Conv2d(width, outputs, 1, bias=False) for width in (inputs, outputs, outputs))
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True), third)


class VariationalInformation(Method):
    """ce_weight CE + kd_weight VID, of all maps of each network except its first.

    Regressors and variances are trained with the student and not saved in its weights. If the sizes of two maps differ,
    the larger one is average-pooled to the smaller first.
    """

    title = "VID"
    reads = ("feature_maps",)

    ce_weight: Weight = 1.0
    kd_weight: Weight = 1.0

    def build(self, context: Context) -> None:
        student, teacher = context.student_outputs.feature_maps, context.teacher_outputs.feature_maps
        self.layers = paired_maps(student, teacher)
        self.predictors = nn.ModuleList(build_predictor(student[s], teacher[t]) for s, t in self.layers)
        widths = [teacher[t].shape[1] for _, t in self.layers]
        self.log_scales = nn.ParameterList(torch.full((width,), FIRST_LOG_SCALE) for width in widths)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out, teacher_maps = student(view), teacher(view).feature_maps
        vid = 0
        for (s, t), predictor, log_scale in zip(self.layers, self.predictors, self.log_scales, strict=True):
            student_map, teacher_map = same_size(student_out.feature_maps[s], teacher_maps[t])
            vid = vid + vid_loss(predictor(student_map), teacher_map, log_scale)
        return {"ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels), "vid": self.kd_weight * vid}

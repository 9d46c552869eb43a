"""Hints (FitNets): a middle map of the student learns to predict a map of the teacher through a regressor r.

two_stage (the paper):  hint_epochs of hint_weight MSE, for the student up to that map; then, for the whole student,
                        ce_weight CE + kd_weight KD, as in logit matching
joint:                  CE + hint_weight MSE throughout, as the public benchmarks train it
MSE = mean over images, channels and pixels of (teacher_map - r(student_map))^2

Romero et al.: FitNets: Hints for Thin Deep Nets, ICLR 2015, equations 3 and 4 and algorithm 1.
"""

from dataclasses import fields
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.logit_matching import LogitMatching
from kdhelpers.methods.parts.paired_maps import inform_of_pairs
from kdhelpers.methods.parts.ranges import Count, NonNegative, Temperature, Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision


def hint_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared difference of the maps, mean over all elements; a scalar.

    student_map (after the regressor), teacher_map: [B, c, h, w], any float dtype (computed in float32, or float64 for
    float64 input). The paper's 1/2 ||.||^2 per image is c h w / 2 times this, a constant that hint_weight absorbs.
    Raises ValueError on shapes that differ.
    """
    layout = "student_map [B, c, h, w], teacher_map [B, c, h, w]; put a regressor (build_regressor) between them"
    check_shapes(layout, student_map, teacher_map)
    return F.mse_loss(full_precision(student_map), full_precision(teacher_map))


def build_regressor(student_map: Tensor, teacher_map: Tensor) -> nn.Sequential:
    """The convolution from the student's map [B, c_s, h_s, w_s] to the shape of the teacher's, then BatchNorm, ReLU.

    3x3 with stride 2 for a student's map twice as large, 4x4 transposed with stride 2 for one half as large, else
    unpadded with kernel 1 + h_s - h_t (1x1 for equal sizes). Raises ValueError if none of them fits.
    """
    _, inputs, *size = student_map.shape
    _, outputs, *target = teacher_map.shape
    if size == [2 * side for side in target]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    elif target == [2 * side for side in size]:
        convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    elif min(kernel := [1 + a - b for a, b in zip(size, target, strict=True)]) > 0:
        convolution = nn.Conv2d(inputs, outputs, kernel, bias=False)
    else:
        raise ValueError(
            f"layer: no regressor fits from the student's map {tuple(student_map.shape[1:])} to the teacher's "
            f"{tuple(teacher_map.shape[1:])}; name a layer whose student map is larger, equal or half as large"
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Hints(Method):
    """Hints at `layer`, a map's name in both networks; "" is the middle map of each network, index len // 2.

    Mode "two_stage" is the paper's, "joint" the CRD benchmark's row FitNet. hint_epochs (part of the run's epochs),
    temperature, ce_weight and kd_weight shape the two stages; joint refuses values for them. The regressor is trained
    with the student and not saved in its weights.
    """

    title = "Hints"
    reads = ("logits", "feature_maps")

    mode: Literal["two_stage", "joint"] = "two_stage"
    hint_epochs: Count = 2
    hint_weight: Weight = 100.0
    layer: str = ""
    temperature: Temperature = 4.0
    ce_weight: NonNegative = 0.5  # the second stage checks that one of the two is above 0
    kd_weight: NonNegative = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        options = {name: getattr(self, name) for name in ("temperature", "ce_weight", "kd_weight")}
        defaults = {field.name: field.default for field in fields(self)}
        for name, value in {"hint_epochs": self.hint_epochs, **options}.items():
            if self.mode == "joint" and value != defaults[name]:
                raise ValueError(f"{name} = {value}: belongs to mode two_stage, mode joint lacks it; leave it out")
        self.second_stage = LogitMatching(**options)
        self.stage_epochs = self.hint_epochs if self.mode == "two_stage" else 0

    def build(self, context: Context) -> None:
        student, teacher = context.student_outputs.feature_maps, context.teacher_outputs.feature_maps
        self.student_layer, self.teacher_layer = _choose(self.layer, student), _choose(self.layer, teacher)
        inform_of_pairs([(self.student_layer, self.teacher_layer)])
        self.regressor = build_regressor(student[self.student_layer], teacher[self.teacher_layer])

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        if epoch <= self.stage_epochs:
            student_out = student(view, stop_at=self.student_layer)
            return {"hint": self._hint(student_out, teacher(view, stop_at=self.teacher_layer))}
        if self.mode == "two_stage":
            return self.second_stage(student, teacher, batch, epoch)
        student_out = student(view)
        ce = cross_entropy(student_out.logits, batch.labels)
        return {"ce": ce, "hint": self._hint(student_out, teacher(view))}

    def _hint(self, student_out, teacher_out) -> Tensor:
        predicted = self.regressor(student_out.feature_maps[self.student_layer])
        return self.hint_weight * hint_loss(predicted, teacher_out.feature_maps[self.teacher_layer])


def _choose(layer: str, maps: dict[str, Tensor]) -> str:
    """The map named `layer`; for "" the middle one: layer2 of a ResNet, block2 of a VGG."""
    names = list(maps)
    if not names:
        raise ValueError("layer: a network names no feature maps; give its Architecture feature_maps")
    if layer and layer not in names:
        raise ValueError(f"layer = {layer}: must be a map of both networks; one network has {', '.join(names)}")
    return layer or names[len(names) // 2]

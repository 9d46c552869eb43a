"""Hints (FitNets): a middle map of the student learns, through a regressor r, to predict one of the teacher's.

two_stage (the paper):  hint_epochs of hint_weight MSE, for the student up to that map; then, for the whole student,
                        ce_weight CE + kd_weight KD, as in logit matching
joint:                  CE + hint_weight MSE throughout, as the public benchmarks run it
MSE = mean over images, channels and pixels of (teacher_map - r(student_map))^2

Romero et al.: FitNets: Hints for Thin Deep Nets, ICLR 2015, equations 3 and 4 and algorithm 1.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.methods.base import Context, Method, check_range, check_weights, full_precision
from kdhelpers.methods.logit_matching import LogitMatching


def hint_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared difference of the maps, mean over all elements; a scalar.

    student_map (after the regressor), teacher_map: [B, c, h, w], any float dtype (computed in float32, or float64 for
    float64 input). The paper's 1/2 ||.||^2 per image is c h w / 2 times this, a constant that hint_weight absorbs.
    Raises ValueError on shapes that differ.
    """
    if student_map.shape != teacher_map.shape:
        raise ValueError(
            f"student_map {tuple(student_map.shape)} and teacher_map {tuple(teacher_map.shape)}: must have one shape; "
            "put a regressor (build_regressor) between them"
        )
    return F.mse_loss(full_precision(student_map), full_precision(teacher_map))


def build_regressor(student_map: Tensor, teacher_map: Tensor) -> nn.Sequential:
    """The convolution from the student's map [B, c_s, h_s, w_s] to the shape of the teacher's, then BatchNorm, ReLU.

    3x3 with stride 2 where the student's map is twice as large, 4x4 transposed with stride 2 where it is half, else
    unpadded with kernel 1 + h_s - h_t (1x1 for equal sizes). Raises ValueError where none of them fits.
    """
    _, inputs, *size = student_map.shape
    _, outputs, *wanted = teacher_map.shape
    if size == [2 * side for side in wanted]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    elif wanted == [2 * side for side in size]:
        convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    elif min(kernel := [1 + ours - theirs for ours, theirs in zip(size, wanted, strict=True)]) > 0:
        convolution = nn.Conv2d(inputs, outputs, kernel, bias=False)
    else:
        raise ValueError(
            f"layer: no regressor from the student's map {tuple(student_map.shape[1:])} to the teacher's "
            f"{tuple(teacher_map.shape[1:])}; name a layer where the student's is larger, equal or half as large"
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Hints(Method):
    """Hints at `layer`, a map's name in both networks; "" is the middle one of each, index len // 2 of its maps.

    hint_epochs (part of the run's epochs), temperature, ce_weight and kd_weight shape the two stages; joint has none
    of them, and refuses values for them. The regressor is trained beside the student and is not in its weights.
    """

    title = "Hints"
    reads = ("logits", "feature_maps")

    def __init__(
        self,
        *,
        mode: Literal["two_stage", "joint"] = "two_stage",
        hint_epochs: int = 2,
        hint_weight: float = 100.0,
        layer: str = "",
        temperature: float = 4.0,
        ce_weight: float = 0.5,
        kd_weight: float = 0.5,
    ):
        super().__init__()
        stages = {
            "hint_epochs": hint_epochs,
            "temperature": temperature,
            "ce_weight": ce_weight,
            "kd_weight": kd_weight,
        }
        if mode == "joint":
            _refuse_changed(stages)
        check_range("hint_epochs", hint_epochs, 1)
        check_weights(hint_weight=hint_weight)
        self.mode, self.hint_weight, self.layer = mode, hint_weight, layer
        self.stage_epochs = hint_epochs if mode == "two_stage" else 0
        self.second_stage = LogitMatching(temperature=temperature, ce_weight=ce_weight, kd_weight=kd_weight)

    def build(self, context: Context) -> None:
        student, teacher = context.student_outputs.feature_maps, context.teacher_outputs.feature_maps
        self.student_layer, self.teacher_layer = _choose(self.layer, student), _choose(self.layer, teacher)
        self.regressor = build_regressor(student[self.student_layer], teacher[self.teacher_layer])

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        if epoch <= self.stage_epochs:
            return {
                "hint": self._hint(student(view, stop_at=self.student_layer), teacher(view, stop_at=self.teacher_layer))
            }
        if self.mode == "two_stage":
            return self.second_stage(student, teacher, batch, epoch)
        outputs = student(view)
        ce = F.cross_entropy(full_precision(outputs.logits), batch.labels)
        return {"ce": ce, "hint": self._hint(outputs, teacher(view))}

    def _hint(self, student, teacher) -> Tensor:
        predicted = self.regressor(student.feature_maps[self.student_layer])
        return self.hint_weight * hint_loss(predicted, teacher.feature_maps[self.teacher_layer])


def _choose(layer: str, maps: dict[str, Tensor]) -> str:
    """The map that `layer` names; for "" the middle one: layer2 of a ResNet, block2 of a VGG."""
    names = list(maps)
    if layer and layer not in names:
        raise ValueError(f"layer = {layer}: not a map of both networks; one of them has {', '.join(names)}")
    return layer or names[len(names) // 2]


def _refuse_changed(values: dict[str, float]) -> None:
    for name, value in values.items():
        if value != Hints.__init__.__kwdefaults__[name]:
            raise ValueError(f"{name} = {value}: belongs to mode two_stage, joint has none; leave it out")

"""SimKD: the student learns the teacher's final map through a projector, and predicts by the teacher's classifier.

L = hint_weight mean (project(F_s) - F_t)^2        logits = W_t mean(project(F_s)) + b_t

F is the input of the global pooling, mean its average over pixels, (W_t, b_t) the teacher's classifier, unchanged. The
labels are not used. A perfect projector gives the teacher's own logits. Chen et al.: Knowledge Distillation with the
Reused Teacher Classifier, CVPR 2022, equations 2 and 3.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.hints import hint_loss
from kdhelpers.methods.parts.ranges import Count, Weight


def simkd_projector(student_channels: int, teacher_channels: int, factor: int = 2) -> nn.Sequential:
    """The nine layers from [B, c_s, h, w] to [B, c_t, h, w]: 1x1 to c_t / factor, 3x3, 1x1 to c_t channels.

    Each convolution has no bias and is followed by BatchNorm and ReLU; torch's initialisation. Raises ValueError if no
    channel is left.
    """
    middle = teacher_channels // factor
    if middle < 1:
        raise ValueError(f"factor = {factor}: leaves none of the teacher's {teacher_channels} channels; lower it")
    widths, layers = (student_channels, middle, middle, teacher_channels), []
    for place, size in enumerate((1, 3, 1)):
        convolution = nn.Conv2d(widths[place], widths[place + 1], size, padding=size // 2, bias=False)
        layers += [convolution, nn.BatchNorm2d(widths[place + 1]), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class ReusedClassifier(nn.Module):
    """The head that predicts: the student's final map -> average-pooled to `size` -> projector -> pool -> classifier.

    size: (height, width) of the smaller of the two final maps.
    """

    def __init__(self, projector: nn.Module, classifier: nn.Module, size: tuple[int, int]):
        super().__init__()
        self.projector, self.pool, self.classifier = projector, nn.AdaptiveAvgPool2d(1), classifier
        self.pixels = size
        self.register_buffer("size", torch.tensor(size))  # stored with the weights

    def forward(self, final_map: Tensor) -> Tensor:
        projected = self.projector(pooled_to(final_map, self.pixels))
        return self.classifier(self.pool(projected).flatten(1))


def pooled_to(final_map: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, c, h, w] average-pooled to (h', w'); unchanged if it has that size."""
    return final_map if final_map.shape[-2:] == size else F.adaptive_avg_pool2d(final_map, size)


class SimKD(Method):
    """The projected final map alone is matched; the student and the projector are trained, no classifier is.

    The head (projector and the teacher's classifier) is stored next to the student, which needs it to predict. The
    larger of two final maps of different sizes is average-pooled to the smaller.
    """

    title = "SimKD"
    reads = ("final_map",)

    hint_weight: Weight = 1.0
    factor: Count = 2

    def build(self, context: Context) -> None:
        student, teacher = context.student_outputs.final_map, context.teacher_outputs.final_map
        height, width = (min(sides) for sides in zip(student.shape[-2:], teacher.shape[-2:], strict=True))
        projector = simkd_projector(student.shape[1], teacher.shape[1], self.factor)
        self.head = ReusedClassifier(projector, context.teacher_classifier.frozen_copy(), (height, width))

    def predicting_head(self) -> ReusedClassifier | None:
        return getattr(self, "head", None)

    @staticmethod
    def load_head(state: Mapping[str, Tensor]) -> ReusedClassifier:
        first, last, weight = (state[f"{name}.weight"] for name in ("projector.0", "projector.6", "classifier"))
        projector = simkd_projector(first.shape[1], last.shape[0], last.shape[0] // last.shape[1])
        classifier = nn.Linear(weight.shape[1], weight.shape[0], bias="classifier.bias" in state)
        head = ReusedClassifier(projector, classifier, tuple(state["size"].tolist()))
        head.load_state_dict(state)
        return head

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        projected = student(view).final_map  # of the student with its head
        target = pooled_to(teacher(view).final_map, projected.shape[-2:])
        return {"hint": self.hint_weight * hint_loss(projected, target)}

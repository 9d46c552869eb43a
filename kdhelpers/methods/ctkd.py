"""Curriculum temperature (CTKD): the temperature of KD is learned, and climbs the loss that the student descends.

L = ce_weight CE + kd_weight T^2 KL(softmax(z_t / T) || softmax(z_s / T)),   T = low + span sigmoid(u)

u is one parameter, 1 at the start. The student's optimiser trains it at the student's rate and weight decay. Its
gradient is multiplied by -strength, and strength rises over the first ramp_epochs as (1 - cos(pi e / ramp_epochs)) / 2.
Li, Li, Yang, Zhao, Song, Luo, Li, Yang: Curriculum Temperature for Knowledge Distillation, AAAI 2023, global version.
"""

import math

import torch
from torch import Tensor, nn

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.logit_matching import kd_loss
from kdhelpers.methods.parts.ranges import Count, Temperature, Weight
from kdhelpers.methods.parts.tensors import cross_entropy


def learned_temperature(parameter: Tensor, strength: float, low: float = 1.0, span: float = 20.0) -> Tensor:
    """T = low + span sigmoid(parameter), a scalar in [low, low + span] whose gradient is multiplied by -strength.

    parameter: a 0-dim float tensor. strength 0 stops the gradient, strength 1 reverses it.
    """
    fixed = parameter.detach()
    return low + span * torch.sigmoid(fixed - strength * (parameter - fixed))  # the bracket is 0, its derivative 1


def ctkd_strength(epoch: int, ramp_epochs: int = 10) -> float:
    """(1 - cos(pi min(epoch, ramp_epochs) / ramp_epochs)) / 2, from 0 to 1; epochs count from 1."""
    return (1 - math.cos(math.pi * min(epoch, ramp_epochs) / ramp_epochs)) / 2


class CurriculumTemperature(Method):
    """ce_weight CE + kd_weight KD at the learned T, which starts at low + 0.73 span.

    The history holds T at the end of each epoch, as `temperature`.
    """

    title = "CTKD"

    ce_weight: Weight = 0.1
    kd_weight: Weight = 0.9
    low: Temperature = 1.0
    span: Temperature = 20.0
    ramp_epochs: Count = 10

    def build(self, context: Context) -> None:
        self.parameter = nn.Parameter(torch.ones(()))

    def temperature(self, epoch: int) -> Tensor:
        """The present T, with its reversed gradient."""
        return learned_temperature(self.parameter, ctkd_strength(epoch, self.ramp_epochs), self.low, self.span)

    def measure(self) -> dict[str, float]:
        return {"temperature": self.temperature(1).item()}

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        logits = student(view).logits
        loss = kd_loss(logits, teacher(view).logits, self.temperature(epoch))
        return {"ce": self.ce_weight * cross_entropy(logits, batch.labels), "kd": self.kd_weight * loss}

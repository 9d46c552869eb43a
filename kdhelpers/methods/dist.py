"""DIST: the student matches the relations of the teacher's probabilities, measured by Pearson's correlation r.

L = T^2 [beta (1 - mean_b r(p_s,b, p_t,b)) + gamma (1 - mean_c r(p_s,c, p_t,c))],   p = softmax(z / T)

The rows p_b are the classes of an image (inter-class relation), the columns p_c the images of a class (intra-class
relation). Correlation ignores offset and scale, so a much surer teacher is not out of reach.
Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, equations 5 to 8.
"""

import torch
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.logit_matching import check_logits
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.ranges import Temperature, Weight
from kdhelpers.methods.parts.tensors import cross_entropy, full_precision

EPS = 1e-8


def dist_loss(
    student_logits: Tensor, teacher_logits: Tensor, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """T^2 (beta (1 - mean correlation of the rows) + gamma (1 - mean correlation of the columns)); a scalar.

    `relations` describes arguments, precision and errors. The value depends on the batch: it compares its images.
    """
    inter, intra = relations(student_logits, teacher_logits, temperature)
    return temperature**2 * (beta * inter + gamma * intra)


def relations(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """1 - r, mean over the images and mean over the classes: two scalars from 0 to 2, without T^2 and weights.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input).
    A row or column without a spread has r = 0 and no gradient, such as every column of a single image. Raises
    ValueError on shapes that differ and on one class.
    """
    check_logits(student_logits, teacher_logits, least=2)
    student, teacher = ((full_precision(z) / temperature).softmax(1) for z in (student_logits, teacher_logits))
    return 1 - correlation(student, teacher, 1).mean(), 1 - correlation(student, teacher, 0).mean()


def correlation(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Pearson's r along `dim`, as in the paper's code with 1e-8 added to the product of the norms."""
    first, second = _centred(first, dim), _centred(second, dim)
    return (first * second).sum(dim) / (first.norm(dim=dim) * second.norm(dim=dim) + EPS)


def _centred(values: Tensor, dim: int) -> Tensor:
    """Minus their mean. Equal values become 0 without gradient, which would divide the rounding of the mean by EPS."""
    centred = values - values.mean(dim, keepdim=True)
    rounding = 10 * torch.finfo(values.dtype).eps * values.detach().norm(dim=dim, keepdim=True)
    return centred * (centred.detach().norm(dim=dim, keepdim=True) > rounding)


class RelationMatching(Method):
    """ce_weight CE + T^2 (beta inter + gamma intra). Under DDP the images of all ranks are compared."""

    title = "DIST"

    beta: Weight = 2.0
    gamma: Weight = 2.0
    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0

    def build(self, context: Context) -> None:
        check_logits(context.student_outputs.logits, context.teacher_outputs.logits, least=2)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        logits = student(view).logits
        inter, intra = relations(gather(logits), gather(teacher(view).logits), self.temperature)
        return {
            "ce": self.ce_weight * cross_entropy(logits, batch.labels),
            "inter": self.temperature**2 * self.beta * inter,
            "intra": self.temperature**2 * self.gamma * intra,
        }

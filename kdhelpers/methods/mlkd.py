"""Multi-level logit distillation (MLKD): KD at several temperatures, and relations of images and of classes.

With P = softmax(z / T), [B, C], for each T in temperature, 2, 3, 5, 6:
B_T = ||P_t P_t^T - P_s P_s^T||^2 / B,   K_T = ||P_t^T P_t - P_s^T P_s||^2 / C,   KD_T = `kd_loss`
L = ce_weight (CE_weak + CE_strong) + kd_weight sum_T [(KD_T + B_T + K_T)(weak) / 2 + KD_T(strong)]

Both networks get a weak view, of crop and flip only, and a strong one, by the run's augmentation. B and K carry no T^2.
The paper masks unsure images and classes in the weak terms. The published code multiplies scalars by these masks of the
median: a factor 1/2, kept here. Its strong KD at T 2 and 6 takes the weak logits by mistake; here the strong ones.
Jin, Wang, Lin: Multi-Level Logit Distillation, CVPR 2023. standardized: Sun et al.: Logit Standardization in Knowledge
Distillation, CVPR 2024.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.logit_matching import check_logits, kd_loss
from kdhelpers.methods.logit_standardization import standardized_kd_loss
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.ranges import Temperature, Weight
from kdhelpers.methods.parts.tensors import cross_entropy, full_precision

FURTHER_TEMPERATURES = (2.0, 3.0, 5.0, 6.0)


def mlkd_batch_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """B_T, a scalar: squared differences of the inner products of all pairs of images, over B.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input). It
    depends on the batch size. Raises ValueError on shapes that differ.
    """
    return _gram_difference(*_softened(student_logits, teacher_logits, temperature)) / len(student_logits)


def mlkd_class_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """K_T, a scalar: squared differences of the inner products of all pairs of classes, over C.

    `mlkd_batch_loss` describes arguments, precision and errors.
    """
    student, teacher = _softened(student_logits, teacher_logits, temperature)
    return _gram_difference(student.T, teacher.T) / student_logits.shape[1]


def _softened(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    check_logits(student_logits, teacher_logits)
    student, teacher = full_precision(student_logits), full_precision(teacher_logits)
    return F.softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1)


def _gram_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """||teacher teacher^T - student student^T||^2 of rows [n, m]."""
    with torch.autocast(student.device.type, enabled=False):
        return (teacher @ teacher.T - student @ student.T).square().sum()


class MultiLevelMatching(Method):
    """ce_weight CE of both views + kd_weight (KD and relations of the weak view / 2 + KD of the strong one).

    standardized takes `standardized_kd_loss` for KD_T; its paper sets kd_weight 9 and temperature 2.
    A step costs two forward passes of each network. The teacher cache holds the teacher's outputs for the weak view;
    the strong view has too many variants to be kept. The published schedule has 480 epochs. Under DDP the
    relations are of the images of all ranks.
    """

    title = "MLKD"
    weak_view = "own_crop"
    needs_strong_view = True

    standardized: bool = False
    temperature: Temperature = 4.0
    ce_weight: Weight = 0.1
    kd_weight: Weight = 0.9

    def build(self, context: Context) -> None:
        check_logits(context.student_outputs.logits, context.teacher_outputs.logits, least=2)

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        views = batch.weak_view, batch.views[0]
        weak, strong = (student(view).logits for view in views)
        weak_target, strong_target = (teacher(view).logits for view in views)
        temperatures, kd = (self.temperature, *FURTHER_TEMPERATURES), self.divergence
        relations = gather(weak), gather(weak_target)
        terms = {
            "kd_weak": self.kd_weight / 2 * sum(kd(weak, weak_target, t) for t in temperatures),
            "kd_strong": self.kd_weight * sum(kd(strong, strong_target, t) for t in temperatures),
            "batch_relations": self.kd_weight / 2 * sum(mlkd_batch_loss(*relations, t) for t in temperatures),
            "class_relations": self.kd_weight / 2 * sum(mlkd_class_loss(*relations, t) for t in temperatures),
        }
        ce = cross_entropy(weak, batch.labels) + cross_entropy(strong, batch.labels)
        return {"ce": self.ce_weight * ce, **terms}

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        """KD_T."""
        return (standardized_kd_loss if self.standardized else kd_loss)(student_logits, teacher_logits, temperature)

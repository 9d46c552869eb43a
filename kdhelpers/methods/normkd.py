"""NormKD: the temperature of each image and network is T times the standard deviation of its logits.

L_N = (1/B) sum_b (T s_t)^2 KL(softmax(Z(z_t) / T) || softmax(Z(z_s) / T)),   L = ce_weight CE + kd_weight L_N

Z is `standardize` and s_t the standard deviation (with C - 1) of the teacher's logits of image b. softmax(z / (T s)) is
softmax(Z(z) / T), so logit standardisation is L_N with the weight T^2 for every image.
Chi, Zheng, Li, Yang, Wu, Lin, Cai: NormKD: Normalized Logits for Knowledge Distillation, 2023.
"""

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context
from kdhelpers.methods.logit_matching import LogitMatching, check_logits
from kdhelpers.methods.logit_standardization import standardize
from kdhelpers.methods.parts.ranges import Temperature, Weight
from kdhelpers.methods.parts.tensors import full_precision


def normkd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """L_N above, summed over classes, mean over the batch; a scalar.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input).
    z_s -> a z_s + b with a > 0 changes nothing; z_t -> a z_t multiplies the loss by a^2. A constant row of the student
    is a uniform softmax and gets no gradient, a constant row of the teacher weighs 0. Raises ValueError on shapes that
    differ and one class.
    """
    check_logits(student_logits, teacher_logits, least=2)
    constant = student_logits.amax(1, keepdim=True) == student_logits.amin(1, keepdim=True)
    standardized = standardize(student_logits.masked_fill(constant, 0))  # its gradient would be divided by 1e-7
    student = F.log_softmax(standardized / temperature, dim=1)
    teacher = F.log_softmax(standardize(teacher_logits) / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    deviation = full_precision(teacher_logits).std(1)
    return ((temperature * deviation).square() * divergence).mean()


class NormalizedLogitMatching(LogitMatching):
    """ce_weight CE + kd_weight L_N; the defaults are the paper's."""

    title = "NormKD"

    temperature: Temperature = 2.0
    ce_weight: Weight = 0.1
    kd_weight: Weight = 0.9

    def build(self, context: Context) -> None:
        check_logits(context.student_outputs.logits, context.teacher_outputs.logits, least=2)

    def loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return normkd_loss(student_logits, teacher_logits, self.temperature)

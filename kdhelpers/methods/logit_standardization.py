"""Logit standardisation: the student matches the order and the relations of the teacher's logits, not their scale.

Z(z) = (z - mean_c z) / (std_c z + eps), per image over the classes, std with C - 1
L_Z = T^2 (1/B) sum_b KL(softmax(Z(z_t) / T) || softmax(Z(z_s) / T)),   L = ce_weight CE + kd_weight L_Z

L_Z does not change under z -> a z + b with a > 0, of either network. With C = 10 classes and T 2, the sharpest possible
target gives 0.35 to one class: take a lower T there. Sun et al.: Logit Standardization in Knowledge Distillation,
CVPR 2024, section 4.
"""

from torch import Tensor

from kdhelpers.methods.dkd import DecoupledKD
from kdhelpers.methods.logit_matching import LogitMatching, kd_loss
from kdhelpers.methods.parts.ranges import Temperature, Weight
from kdhelpers.methods.parts.tensors import full_precision

EPS = 1e-7


def standardize(logits: Tensor, eps: float = EPS) -> Tensor:
    """Z(z) of each row of [B, C], float32 (float64 for float64 input): mean 0 and standard deviation 1 over classes.

    Constant logits give 0 up to the rounding of their mean: a uniform softmax, with a finite gradient. Raises
    ValueError for a single class, which has no spread.
    """
    if logits.shape[1] < 2:
        raise ValueError(f"logits {tuple(logits.shape)}: standardising needs two classes or more")
    centred = full_precision(logits) - full_precision(logits).mean(1, keepdim=True)
    variance = centred.square().sum(1, keepdim=True) / (logits.shape[1] - 1)
    # The root's derivative at 0 is infinite: the clamp removes the gradient of the spread there.
    return centred / (variance.clamp(min=eps**2 * 1e-6).sqrt() + eps)


def standardized_kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """`kd_loss` of the standardised logits: L_Z above, a scalar.

    student_logits, teacher_logits: [B, C], any float dtype. Raises ValueError on shapes that differ and a single class.
    """
    return kd_loss(standardize(student_logits), standardize(teacher_logits), temperature)


class StandardizedLogitMatching(LogitMatching):
    """ce_weight CE + kd_weight L_Z; the defaults are the paper's, its weight 10 times plain KD's."""

    title = "KD, standardised"

    temperature: Temperature = 2.0
    ce_weight: Weight = 0.1
    kd_weight: Weight = 9.0

    def loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return standardized_kd_loss(student_logits, teacher_logits, self.temperature)


class StandardizedDecoupledKD(DecoupledKD):
    """DKD of standardised logits; alpha and beta are 9 times plain DKD's, as in the paper."""

    title = "DKD, standardised"

    alpha: Weight = 9.0
    beta: Weight = 72.0
    temperature: Temperature = 2.0

    def divergences(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return super().divergences(standardize(student_logits), standardize(teacher_logits), labels)

"""Logit standardisation: the student matches the order and the relations of the teacher's logits, not their scale.

Z(z) = (z - mean_c z) / (std_c z + eps), per image over the classes, std with C - 1
L_Z = T^2 (1/B) sum_b KL(softmax(Z(z_t) / T) || softmax(Z(z_s) / T)),   L = ce_weight CE + kd_weight L_Z

L_Z does not change under z -> a z + b with a > 0, of either network. Of C = 10 classes the sharpest possible target at
T 2 gives 0.35 to one class: take a lower T there. Sun et al.: Logit Standardization in Knowledge Distillation,
CVPR 2024, section 4.
"""

from torch import Tensor

from kdhelpers.methods.base import full_precision
from kdhelpers.methods.dkd import DecoupledKD, decoupled_divergences
from kdhelpers.methods.logit_matching import LogitMatching, kd_loss

EPS = 1e-7


def standardize(logits: Tensor, eps: float = EPS) -> Tensor:
    """Z(z) of each row of [B, C], float32 (float64 for float64 input): mean 0 and standard deviation 1 over classes.

    Constant logits give one value everywhere, 0 but for the rounding of their mean: a uniform softmax, with a finite
    gradient. Raises ValueError for a single class, which has no spread.
    """
    if logits.shape[1] < 2:
        raise ValueError(f"logits {tuple(logits.shape)}: standardising needs two classes or more")
    centred = full_precision(logits) - full_precision(logits).mean(1, keepdim=True)
    variance = centred.square().sum(1, keepdim=True) / (logits.shape[1] - 1)
    # The root's slope at 0 is infinite: there the gradient of the spread is left out.
    return centred / (variance.clamp(min=eps**2 * 1e-6).sqrt() + eps)


def standardized_kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """`kd_loss` of the standardised logits: L_Z above, a scalar.

    student_logits, teacher_logits: [B, C], any float dtype. Raises ValueError on shapes that differ and a single class.
    """
    return kd_loss(standardize(student_logits), standardize(teacher_logits), temperature)


class StandardizedLogitMatching(LogitMatching):
    """ce_weight CE(labels) + kd_weight L_Z; the defaults are the paper's, its weight 10 times plain KD's."""

    title = "KD, standardised"

    def __init__(self, *, temperature: float = 2.0, ce_weight: float = 0.1, kd_weight: float = 9.0):
        super().__init__(temperature=temperature, ce_weight=ce_weight, kd_weight=kd_weight)

    def loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return standardized_kd_loss(student_logits, teacher_logits, self.temperature)


class StandardizedDecoupledKD(DecoupledKD):
    """DKD of standardised logits; alpha and beta are 9 times those of plain DKD, as the paper has it."""

    title = "DKD, standardised"

    def __init__(
        self,
        *,
        alpha: float = 9.0,
        beta: float = 72.0,
        temperature: float = 2.0,
        ce_weight: float = 1.0,
        warmup_epochs: float = 20.0,
    ):
        super().__init__(
            alpha=alpha, beta=beta, temperature=temperature, ce_weight=ce_weight, warmup_epochs=warmup_epochs
        )

    def divergences(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = standardize(student_logits), standardize(teacher_logits)
        return decoupled_divergences(*logits, labels, self.temperature)

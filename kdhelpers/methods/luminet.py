"""LumiNet: KD of logits that are standardised for each class over the images of the batch, the "perception".

h = (z - mean_b z) / sqrt(var_b z + 1e-5), for each class over the batch, var with B
L_Lumi = alpha^2 (1/B) sum_b KL(softmax(h_t / T) || softmax(h_s / T))
L = ce_weight CE + min(epoch / warmup_epochs, 1) L_Lumi

A class has a large h in the images that show more of it than the others do. alpha^2 replaces the T^2 of KD.
Hossain et al.: LumiNet: Perception-Driven Knowledge Distillation via Statistical Logit Calibration, TMLR 2025.
"""

from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.logit_matching import kd_loss
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.methods.parts.ranges import NonNegative, Temperature, Weight
from kdhelpers.methods.parts.tensors import cross_entropy, full_precision
from kdhelpers.methods.parts.warmup import warmup

EPS = 1e-5


def perception(logits: Tensor) -> Tensor:
    """h of [B, C], float32 (float64 for float64 input): over the batch, each class has mean 0 and variance 1.

    A class with the same logit in all images has h = 0, such as every class of a single image.
    """
    logits = full_precision(logits)
    shifted = logits - logits[:1].detach()  # changes nothing; equal logits become 0 without the rounding of their mean
    centred = shifted - shifted.mean(0)
    return centred / (centred.square().mean(0) + EPS).sqrt()


def luminet_loss(
    student_logits: Tensor, teacher_logits: Tensor, alpha: float = 33.0, temperature: float = 4.0
) -> Tensor:
    """alpha^2 KL of the perceptions at T, summed over classes, mean over the batch; a scalar. A single image gives 0.

    student_logits, teacher_logits: [B, C], any float dtype (computed in float32, or float64 for float64 input).
    The value depends on the batch: it compares its images. Raises ValueError on shapes that differ.
    """
    kd = kd_loss(perception(student_logits), perception(teacher_logits), temperature)
    return (alpha / temperature) ** 2 * kd


class LumiNet(Method):
    """ce_weight CE + L_Lumi, which rises over the first `warmup_epochs`. The defaults are resnet32x4 to resnet8x4's.

    Under DDP the images of all ranks are one batch.
    """

    title = "LumiNet"

    alpha: Weight = 33.0
    temperature: Temperature = 4.0
    ce_weight: Weight = 2.0
    warmup_epochs: NonNegative = 20.0

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        logits = student(view).logits
        kd = luminet_loss(gather(logits), gather(teacher(view).logits), self.alpha, self.temperature)
        return {
            "ce": self.ce_weight * cross_entropy(logits, batch.labels),
            "kd": warmup(epoch, self.warmup_epochs) * kd,
        }

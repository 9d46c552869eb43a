"""Logit matching on unlabelled images: the teacher's word counts on images whose labels nobody has.

With n labelled images (x, y) and m unlabelled ones u in a step, and KD = T^2 KL(softmax(z_t / T) || softmax(z_s / T)),

    L = ce_weight mean_x CE(y, x) + kd_weight mean_x KD(x) + unlabelled_weight mean_u KD(u)

One mean over all n + m images with weight lambda is kd_weight lambda n / (n + m), unlabelled_weight lambda m / (n + m).

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, whose transfer set may be unlabelled. That
both networks look at one crop is the consistency of Beyer et al.: Knowledge distillation: a good teacher is patient
and consistent, 2022; there they see the same pixels, here the teacher sees them without the stronger augmentation.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Method, check_range, check_weights, full_precision
from kdhelpers.methods.logit_matching import kd_loss


class UnlabelledDistillation(Method):
    """ce_weight CE + kd_weight KD on the labelled images, unlabelled_weight KD on the unlabelled ones.

    The student sees the run's augmentation; the teacher sees a gentle view, crop and flip alone: of the student's own
    crop (consistent), or of another one. joint: labelled and unlabelled images go through the student in one forward,
    so that BatchNorm normalises them by common statistics; else in two, each by its own, and its running statistics
    move twice. With unlabelled_weight 0 nobody is shown an unlabelled image: it is distillation on the labelled ones.
    """

    title = "KD + unlabelled"

    def __init__(
        self,
        *,
        temperature: float = 3.0,
        ce_weight: float = 1.0,
        kd_weight: float = 1.0,
        unlabelled_weight: float = 1.0,
        consistent: bool = True,
        joint: bool = True,
    ):
        super().__init__()
        check_range("temperature", temperature, 0.01, 1000)
        check_weights(ce_weight=ce_weight, kd_weight=kd_weight, unlabelled_weight=unlabelled_weight)
        self.temperature, self.ce_weight, self.kd_weight = temperature, ce_weight, kd_weight
        self.unlabelled_weight, self.joint = unlabelled_weight, joint
        self.uses_unlabelled = unlabelled_weight > 0
        self.weak_view = "shared_crop" if consistent else "own_crop"

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        logits, others = self._student_logits(student, batch)
        terms = {"ce": self.ce_weight * F.cross_entropy(full_precision(logits), batch.labels)}
        if self.kd_weight:
            taught = teacher(batch.weak_view).logits
            terms["kd"] = self.kd_weight * kd_loss(logits, taught, self.temperature)
        if others is not None:
            taught = teacher(batch.unlabelled.weak_view).logits
            terms["kd_unlabelled"] = self.unlabelled_weight * kd_loss(others, taught, self.temperature)
        return terms

    def _student_logits(self, student, batch) -> tuple[Tensor, Tensor | None]:
        """Of the labelled images, and of the unlabelled ones where they count."""
        own = batch.views[0]
        if not self.uses_unlabelled:
            return student(own).logits, None
        others = batch.unlabelled.views[0]
        if not self.joint:
            return student(own).logits, student(others).logits
        return student(torch.cat([own, others])).logits.split([len(own), len(others)])

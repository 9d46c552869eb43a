"""Logit matching on labelled and unlabelled images: the teacher's logits are the target for both.

With n labelled images (x, y) and m unlabelled ones u in a step, and KD = T^2 KL(softmax(z_t / T) || softmax(z_s / T)),

    L = ce_weight mean_x CE(y, x) + kd_weight mean_x KD(x) + unlabelled_weight mean_u KD(u)

One mean over all n + m images with weight lambda is kd_weight lambda n / (n + m), unlabelled_weight lambda m / (n + m).

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, whose transfer set may be unlabelled. The
common crop of both networks is the consistency of Beyer et al.: Knowledge distillation: a good teacher is patient and
consistent, 2022. They give both networks the same pixels; here the teacher gets the weak view of the crop.
"""

import torch
from torch import Tensor

from kdhelpers.methods.base import Method
from kdhelpers.methods.logit_matching import kd_loss
from kdhelpers.methods.parts.ranges import Temperature, Weight
from kdhelpers.methods.parts.tensors import cross_entropy


class UnlabelledDistillation(Method):
    """ce_weight CE + kd_weight KD on the labelled images, unlabelled_weight KD on the unlabelled ones.

    The student gets the run's augmentation. The teacher gets a weak view (FixMatch's term: crop and flip only): of the
    student's own crop (consistent), or of another crop, Beyer's ablation. All images pass through the student in one
    forward pass, so BatchNorm normalises them together. unlabelled_weight 0 uses labelled images alone: the baseline.
    """

    title = "KD + unlabelled"
    retired = {"joint": True}

    temperature: Temperature = 3.0
    ce_weight: Weight = 1.0
    kd_weight: Weight = 1.0
    unlabelled_weight: Weight = 1.0
    consistent: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.uses_unlabelled = self.unlabelled_weight > 0
        self.weak_view = "shared_crop" if self.consistent else "own_crop"

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        labelled = len(batch.labels)
        images = torch.cat([batch.views[0], batch.unlabelled.views[0]]) if self.uses_unlabelled else batch.views[0]
        logits, unlabelled_logits = student(images).logits.split([labelled, len(images) - labelled])
        terms = {"ce": self.ce_weight * cross_entropy(logits, batch.labels)}
        if self.kd_weight:
            teacher_logits = teacher(batch.weak_view).logits
            terms["kd"] = self.kd_weight * kd_loss(logits, teacher_logits, self.temperature)
        if self.uses_unlabelled:
            teacher_logits = teacher(batch.unlabelled.weak_view).logits
            kd = kd_loss(unlabelled_logits, teacher_logits, self.temperature)
            terms["kd_unlabelled"] = self.unlabelled_weight * kd
        return terms

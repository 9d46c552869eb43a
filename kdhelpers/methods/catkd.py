"""Class attention transfer (CAT-KD): the student matches the teacher's map of the evidence for each class.

CAM_c = sum_k W_c,k F_k: the map of class c, of the last map F [d, h, w] and the classifier's weights W [C, d]
L_CAT = mean over images, classes and r x r pixels of (CAM_s - CAM_t)^2, both average-pooled to r x r;
        with `normalize` each class of an image is divided by its L2 norm over the pixels
L = ce_weight CE + kd_weight L_CAT

The mean of CAM_c over its pixels is the logit of class c without the bias. Guo, Yan, Li, Wang: Class Attention Transfer
Based Knowledge Distillation, CVPR 2023, sections 3.1 and 3.2. The paper normalises always, the published code only for
networks of different families.
"""

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.parts.paired_maps import pooled, unit
from kdhelpers.methods.parts.ranges import Count, Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision


def class_activation_maps(feature_map: Tensor, weight: Tensor) -> Tensor:
    """[B, C, h, w]: the map of each class, W F, without the bias.

    feature_map: [B, d, h, w], the input of the global pooling. weight: [C, d], the classifier's. Any float dtypes
    (computed in float32 outside autocast, or float64 for float64 input). Raises ValueError on widths that differ.
    """
    check_shapes(
        "feature_map [B, d, h, w], weight [C, d]; take the map that the global pooling reads", feature_map, weight
    )
    return F.conv2d(full_precision(feature_map), full_precision(weight)[:, :, None, None])


def cat_loss(student_cams: Tensor, teacher_cams: Tensor, resolution: int = 2, normalize: bool = True) -> Tensor:
    """L_CAT above, the mean over images, classes and pixels; a scalar.

    student_cams, teacher_cams: [B, C, h, w] from `class_activation_maps`, sizes may differ; any float dtype (computed
    in float32, or float64 for float64 input). A class whose pooled map is 0 stays 0 when normalised, and gets no
    gradient. Raises ValueError on different numbers of images or classes.
    """
    layout = "student_cams [B, C, h, w], teacher_cams [B, C, H, W]; were the two networks built for the same classes?"
    check_shapes(layout, student_cams, teacher_cams)
    cams = [pooled(full_precision(cams), resolution) for cams in (student_cams, teacher_cams)]
    return F.mse_loss(*(unit(each, (2, 3)) for each in cams) if normalize else cams)


class ClassAttentionTransfer(Method):
    """ce_weight CE + kd_weight L_CAT, of both networks' own classifiers; the student's is trained by both terms."""

    title = "CAT-KD"
    reads = ("final_map",)

    ce_weight: Weight = 1.0
    kd_weight: Weight = 15.0
    resolution: Count = 2
    normalize: bool = False

    def build(self, context: Context) -> None:
        self.classifiers = context.student_classifier, context.teacher_classifier

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out = student(view)
        cams = [  # pooled before the classifier, which commutes and saves time
            class_activation_maps(pooled(outputs.final_map, self.resolution), classifier.weight)
            for outputs, classifier in zip((student_out, teacher(view)), self.classifiers, strict=True)
        ]
        return {
            "ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels),
            "cat": self.kd_weight * cat_loss(*cams, self.resolution, self.normalize),
        }

"""Inter-channel correlation distillation (ICKD-C): channels correlate in the student as they do in the teacher.

G = F F^T of one image's channels, F [c, h w]; each row of G is divided by its Euclidean norm
L = sum of (G_s - G_t)^2 / (B c)

The student's map first gets the teacher's channels, by a 1x1 convolution and BatchNorm. Sizes may differ.
Liu et al.: Exploring Inter-Channel Correlation for Diversity-Preserved Knowledge Distillation, ICCV 2021; the
rows' norm and the 1 / c follow the published code.
"""

from torch import Tensor, nn

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.logit_matching import kd_loss
from kdhelpers.methods.parts.paired_maps import inform_of_pairs, unit
from kdhelpers.methods.parts.products import inner_products
from kdhelpers.methods.parts.ranges import Temperature, Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision
from kdhelpers.methods.sp import last_name

LAYOUT = "student_map [B, c, h, w], teacher_map [B, c, H, W]; put a 1x1 convolution and BatchNorm before student_map"


def ickd_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """The loss above: summed over a channel's correlations, mean over images and channels; a scalar.

    student_map (after convolution and BatchNorm) [B, c, h, w], teacher_map [B, c, H, W], any float dtype (computed in
    float32, or float64 for float64 input). A channel that is 0 everywhere has correlation 0 with all, and gets no
    gradient. Raises ValueError on batches or channels that differ.
    """
    check_shapes(LAYOUT, student_map, teacher_map)
    difference = correlations(student_map) - correlations(teacher_map)
    return difference.square().sum(2).mean()


def correlations(feature_map: Tensor) -> Tensor:
    """The rows of G, each of norm 1: [B, c, h, w] -> [B, c, c]."""
    channels = full_precision(feature_map).flatten(2)
    return unit(inner_products(channels, channels), 2)


class InterChannelCorrelation(Method):
    """ce_weight CE + ickd_weight ICKD-C of the last named maps + kd_weight KD; kd_weight 1 is the published ICKD+KD.

    The convolution and its BatchNorm are trained with the student and not saved in its weights.
    """

    title = "ICKD"
    reads = ("logits", "feature_maps")

    ce_weight: Weight = 1.0
    ickd_weight: Weight = 2.5
    kd_weight: Weight = 0.0
    kd_temperature: Temperature = 4.0

    def build(self, context: Context) -> None:
        student, teacher = context.student_outputs.feature_maps, context.teacher_outputs.feature_maps
        self.student_layer, self.teacher_layer = last_name(student), last_name(teacher)
        inform_of_pairs([(self.student_layer, self.teacher_layer)])
        inputs, outputs = student[self.student_layer].shape[1], teacher[self.teacher_layer].shape[1]
        self.projector = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out, teacher_out = student(view), teacher(view)
        projected = self.projector(student_out.feature_maps[self.student_layer])
        terms = {
            "ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels),
            "ickd": self.ickd_weight * ickd_loss(projected, teacher_out.feature_maps[self.teacher_layer]),
        }
        if self.kd_weight:
            terms["kd"] = self.kd_weight * kd_loss(student_out.logits, teacher_out.logits, self.kd_temperature)
        return terms

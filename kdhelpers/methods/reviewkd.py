"""ReviewKD: each level of the student, fused with its deeper levels, learns the teacher's map of that level.

x_i = reduce_i(F_i),   [g, g'] = sigmoid(attend_i([x_i, d])),   d = fused_{i+1} at the size of x_i
fused_i = (g x_i + g' d) at the teacher's size (the deepest level: x_i),   output_i = expand_i(fused_i)
HCL = sum_i [MSE_i + sum_n MSE_i(pooled to l_n) / 2^n] / [1 + sum_n 1 / 2^n],   l_n: 4, 2, 1 if below the height
L = ce_weight CE + min(epoch / warmup_epochs, 1) kd_weight HCL(output, the teacher's maps before their last ReLU)

The levels are the maps of both networks except the first, and the embedding as the deepest level, of 1x1 pixel.
Chen, Liu, Zhao, Jia: Distilling Knowledge via Knowledge Review, CVPR 2021, section 3. Sizes are the published code's,
whose teachers stay in train mode; here the teacher is in eval mode.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.parts.paired_maps import paired_maps, pooled
from kdhelpers.methods.parts.ranges import NonNegative, Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision
from kdhelpers.methods.parts.warmup import warmup

MAPS = "student_map [B, c, h, w], teacher_map [B, c, h, w]; AttentionFusion gives the student's the teacher's shape"
WIDEST = 512  # channels of the fused maps


def hcl_loss(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """The hierarchical context loss HCL above: squared differences at several scales, summed over levels; a scalar.

    student_maps, teacher_maps: one map [B, c, h, w] a level, of equal shapes within a level, any float dtype (computed
    in float32, or float64 for float64 input). Each MSE is a mean over all elements. Raises ValueError on lists of
    different lengths, on empty lists and on maps of different shapes.
    """
    if not student_maps or len(student_maps) != len(teacher_maps):
        counts = f"student_maps: has {len(student_maps)} levels, teacher_maps {len(teacher_maps)}"
        raise ValueError(f"{counts}; pass one map of each network a level")
    return torch.stack([_level_loss(*pair) for pair in zip(student_maps, teacher_maps, strict=True)]).sum()


def _level_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    check_shapes(MAPS, student_map, teacher_map)
    difference = full_precision(student_map) - full_precision(teacher_map)
    loss, weight, total = difference.square().mean(), 1.0, 1.0
    for side in (4, 2, 1):
        if side < difference.shape[2]:
            weight /= 2
            loss = loss + weight * pooled(difference, side).square().mean()  # pooling is linear
            total += weight
    return loss / total


class AttentionFusion(nn.Module):
    """Attention-based fusion (ABF) of one level: `forward(map, deeper, size) -> (output, fused)`.

    map: the student's, [B, channels, h, w]. deeper: `fused` of the next deeper level, [B, middle, *, *]; None for the
    deepest, which is made with fuses=False. size: height and width of the teacher's map.
    output: [B, teacher_channels, *size], compared with the teacher. fused: [B, middle, *size], for the next level.
    """

    def __init__(self, channels: int, middle: int, teacher_channels: int, fuses: bool):
        super().__init__()
        self.reduce = _convolution(channels, middle, 1)
        self.expand = _convolution(middle, teacher_channels, 3)
        self.attend = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if fuses else None

    def forward(self, feature_map: Tensor, deeper: Tensor | None, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        x = self.reduce(feature_map)
        if self.attend is not None:
            deeper = _resized(deeper, x.shape[2:])
            own, from_deeper = self.attend(torch.cat([x, deeper], dim=1)).split(1, dim=1)  # [B, 1, h, w] each
            x = own * x + from_deeper * deeper
        fused = _resized(x, size)
        return self.expand(fused), fused


def _convolution(channels_in: int, channels: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels))


def _resized(feature_map: Tensor, size: Sequence[int]) -> Tensor:
    """The map at height and width `size`, by nearest neighbours."""
    same = tuple(feature_map.shape[2:]) == tuple(size)
    return feature_map if same else F.interpolate(feature_map, tuple(size), mode="nearest")


class KnowledgeReview(Method):
    """ce_weight CE + kd_weight HCL, which rises over the first `warmup_epochs` (0: no warm-up).

    The fusions are trained with the student and not saved in its weights. Networks whose numbers of maps differ are
    refused.
    """

    title = "ReviewKD"
    reads = ("embedding", "feature_maps", "pre_activations")

    ce_weight: Weight = 1.0
    kd_weight: Weight = 5.0
    warmup_epochs: NonNegative = 20.0

    def build(self, context: Context) -> None:
        student, teacher = context.student_outputs, context.teacher_outputs
        self.pairs = paired_maps(student.feature_maps, teacher.feature_maps)
        middle = min(WIDEST, student.embedding.shape[1])
        self.fusions = nn.ModuleList(
            AttentionFusion(own.shape[1], middle, target.shape[1], fuses=level > 0)
            for level, (own, target) in enumerate(self._levels(student, teacher))
        )

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out = student(view)
        levels = self._levels(student_out, teacher(view))
        outputs, fused = [], None
        for fusion, (own, target) in zip(self.fusions, levels, strict=True):
            output, fused = fusion(own, fused, target.shape[2:])
            outputs.append(output)
        weight = self.kd_weight * warmup(epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels),
            "review": weight * hcl_loss(outputs, [target for _, target in levels]),
        }

    def _levels(self, student_out, teacher_out) -> list[tuple[Tensor, Tensor]]:
        """The student's map and the teacher's map before its last ReLU of each level, the deepest first."""
        deepest = student_out.embedding[:, :, None, None], teacher_out.embedding[:, :, None, None]
        maps = [(student_out.feature_maps[s], teacher_out.pre_activations[t]) for s, t in reversed(self.pairs)]
        return [deepest, *maps]

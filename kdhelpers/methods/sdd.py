"""Scale decoupled distillation (SDD): distils the logits of parts of the image, cell by cell, besides the global ones.

z(cell) = classifier(mean of the last map over the cell): the global logits for the cell of all pixels
L_SD = mean over images and cells of w(cell) L_base(z_s(cell), z_t(cell)),   L_base: KD or DKD
w(cell) = complementary_weight if the teacher is right in the cell and wrong globally, or the reverse; else 1
L = ce_weight CE + min(epoch / warmup_epochs, 1) kd_weight L_SD

An image of several objects mixes their classes in its global logits; the cells keep them apart.
Wei, Luo, Luo: Scaled Decoupled Distillation, CVPR 2024, section 3. w and the mean are the published code's.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.base import Context, Method
from kdhelpers.methods.dkd import decoupled_divergences
from kdhelpers.methods.parts.paired_maps import pooled
from kdhelpers.methods.parts.ranges import NonNegative, Temperature, Weight
from kdhelpers.methods.parts.tensors import check_shapes, cross_entropy, full_precision
from kdhelpers.methods.parts.warmup import warmup

GRID = 4  # the last map is pooled to 4x4 before its cells are made
CELLS = "student_cells [B, cells, C], teacher_cells [B, cells, C], labels [B]; take cell_logits of the same scales"


def cell_logits(feature_map: Tensor, classifier, scales: tuple[int, ...] = (1, 2)) -> Tensor:
    """[B, cells, C]: the logits of each cell, scale after scale, row by row; scale 2 has 2x2 cells.

    feature_map: [B, d, h, w], the input of the global pooling. It is pooled to 4x4 first. If 4 does not divide a side,
    these bins overlap, and the global cell is a weighted mean of the pixels. classifier: [..., d] -> [..., C].
    scales: some of 1, 2, 4. The losses below need 1 first, for the global cell. Raises ValueError for other scales.
    """
    check_scales(scales)
    grid = pooled(feature_map, GRID)
    return classifier(torch.cat([pooled(grid, scale).flatten(2) for scale in scales], dim=2).mT)


def check_scales(scales: tuple[int, ...]) -> None:
    """Raise ValueError unless each scale divides the 4x4 grid."""
    if not scales or not set(scales) <= {1, 2, GRID}:
        raise ValueError(f"scales = {list(scales)}: must be some of 1, 2, {GRID}; take for instance 1, 2")


def verdicts(teacher_cells: Tensor, labels: Tensor) -> Tensor:
    """bool [B, cells]: the teacher's most probable class in the cell is the label. teacher_cells [B, cells, C]."""
    return teacher_cells.argmax(2) == labels[:, None]


def sdd_kd_loss(
    student_cells: Tensor,
    teacher_cells: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    complementary_weight: float = 2.0,
) -> Tensor:
    """L_SD with `kd_loss` as its base: T^2 KL per cell, summed over classes, mean over images and cells; a scalar.

    student_cells, teacher_cells: [B, cells, C] from `cell_logits`, the global cell first, any float dtype (computed in
    float32, or float64 for float64 input). labels: int64 [B]. One cell gives `kd_loss`. Raises ValueError on shapes
    that differ.
    """
    check_shapes(CELLS, student_cells, teacher_cells, labels)
    student, teacher = (full_precision(cells) / temperature for cells in (student_cells, teacher_cells))
    divergences = F.kl_div(student.log_softmax(2), teacher.log_softmax(2), reduction="none", log_target=True).sum(2)
    return temperature**2 * _weighted_mean(divergences, teacher_cells, labels, complementary_weight)


def sdd_dkd_loss(
    student_cells: Tensor,
    teacher_cells: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    complementary_weight: float = 2.0,
) -> Tensor:
    """L_SD with `dkd_loss` as its base: T^2 (alpha TCKD + beta NCKD) per cell, mean over images and cells; a scalar.

    Arguments as for `sdd_kd_loss`. One cell gives `dkd_loss`. Raises ValueError on shapes that differ and one class.
    """
    check_shapes(CELLS, student_cells, teacher_cells, labels)
    cells = student_cells.shape[1]
    rows = student_cells.flatten(0, 1), teacher_cells.flatten(0, 1), labels[:, None].expand(-1, cells).flatten()
    target, others = decoupled_divergences(*rows, temperature)
    divergences = (alpha * target + beta * others).view(-1, cells)
    return temperature**2 * _weighted_mean(divergences, teacher_cells, labels, complementary_weight)


def _weighted_mean(divergences: Tensor, teacher_cells: Tensor, labels: Tensor, complementary_weight: float) -> Tensor:
    """Mean of [B, cells], in which a cell counts `complementary_weight` times if its verdict is not the global one."""
    right = verdicts(teacher_cells, labels)
    return torch.where(right == right[:, :1], divergences, complementary_weight * divergences).mean()


class ScaleDecoupledKD(Method):
    """ce_weight CE + kd_weight L_SD, which rises over the first `warmup_epochs` (0: no warm-up).

    The defaults are SD-KD's. SD-DKD was published with base="dkd", ce_weight=1, kd_weight=1 and warmup_epochs=20; base
    "kd" refuses values for alpha and beta. `scales` of networks of different families were 1, 2, 4.
    """

    title = "SDD"
    reads = ("final_map",)

    base: Literal["kd", "dkd"] = "kd"
    scales: tuple[int, ...] = (1, 2)
    temperature: Temperature = 4.0
    ce_weight: Weight = 0.1
    kd_weight: Weight = 0.9
    complementary_weight: NonNegative = 2.0
    alpha: NonNegative = 1.0
    beta: NonNegative = 8.0
    warmup_epochs: NonNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scales(self.scales)
        if self.scales[0] != 1:
            raise ValueError(f"scales = {list(self.scales)}: must begin with 1, the global cell; put it first")
        for name, default in (("alpha", 1.0), ("beta", 8.0)):
            if self.base == "kd" and getattr(self, name) != default:
                raise ValueError(f"{name} = {getattr(self, name)}: belongs to base dkd; leave it out")

    def build(self, context: Context) -> None:
        self.classifiers = context.student_classifier, context.teacher_classifier

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        view = batch.views[0]
        student_out = student(view)
        cells = [
            cell_logits(outputs.final_map, classifier, self.scales)
            for outputs, classifier in zip((student_out, teacher(view)), self.classifiers, strict=True)
        ]
        weight = self.kd_weight * warmup(epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * cross_entropy(student_out.logits, batch.labels),
            "sdd": weight * self.loss(*cells, batch.labels),
        }

    def loss(self, student_cells: Tensor, teacher_cells: Tensor, labels: Tensor) -> Tensor:
        """L_SD of the chosen base."""
        decoupled = (self.alpha, self.beta) if self.base == "dkd" else ()
        loss = sdd_dkd_loss if decoupled else sdd_kd_loss
        return loss(student_cells, teacher_cells, labels, *decoupled, self.temperature, self.complementary_weight)

"""Student and method as one module: what a training step calls."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdhelpers.data import Batch
from kdhelpers.methods import Method
from kdhelpers.models import FeatureExtractor, Outputs
from kdhelpers.training.placebo import Placebo
from kdhelpers.training.teacher import Teacher


class DistillationModule(nn.Module):
    """Student and method as one module: DDP, compile and the optimiser meet everything that is trained.

    placebo: what the method sees of the teacher, which other students share (see `Run.placebo`).
    """

    def __init__(self, student: FeatureExtractor, method: Method, teacher: Teacher | None, placebo: str = ""):
        super().__init__()
        self.student, self.method, self.placebo = student, method, placebo
        self.set_teacher(teacher)

    def set_teacher(self, teacher: Callable[..., Outputs] | None) -> None:
        self.__dict__["teacher"] = teacher  # not a submodule: never trained, saved or wrapped

    def forward(self, batch: Batch, epoch: int) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted loss terms, and the number of images that the student classifies correctly in its first view."""
        student_logits: list[Tensor] = []

        def student(view: Tensor, stop_at: str | None = None) -> Outputs:
            outputs = self.student(view, stop_at=stop_at)
            student_logits.append(outputs.logits)
            return outputs

        teacher = Placebo(self.teacher, self.placebo) if self.placebo else self.teacher
        terms = self.method(student, teacher, batch, epoch)
        with torch.no_grad():
            return terms, _count_hits(student_logits, batch.labels)


def _count_hits(student_logits: list[Tensor], labels: Tensor) -> Tensor:
    """Of the first forward; 0 if it stopped early. Other images may be stacked after the first view."""
    logits = student_logits[0] if student_logits else None
    if logits is None or len(logits) < len(labels):
        return labels.new_zeros(())
    return (logits[: len(labels)].argmax(1) == labels).sum()

"""The teacher of a training loop: one forward pass for all students, and for the images of several steps at once."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import Tensor

from kdhelpers.data import Batch, Batches
from kdhelpers.models import Outputs
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.teacher import Teacher
from kdhelpers.training.teacher_cache import PARTS, CachedTeacher, NotKept, cached_teacher


class SharedTeacher:
    """The teacher's outputs for the present step: computed once for all students, and for a whole block at once.

    The outputs of a frozen network in eval mode do not depend on the other images of a batch. by_block: False if a
    student reads feature maps, which are too large to keep for a block. `forwards` counts the calls of the teacher.
    """

    def __init__(self, teacher: Teacher | CachedTeacher, by_block: bool = True):
        self.teacher, self.by_block, self.forwards = teacher, by_block, 0
        self.batch: Batch | None = None
        self._of_block: list[tuple] = []
        self._of_step: list[tuple] = []

    def __call__(self, view: Tensor, stop_at: str | None = None) -> Outputs:
        if not self.has_block(view, stop_at):
            return self._once(self._of_step, view, stop_at)
        whole, view_ids, span = self.batch.in_block(view)
        options = {"view_ids": view_ids} if isinstance(self.teacher, CachedTeacher) else {}
        outputs = self._once(self._of_block, whole, None, **options)
        embedding = None if outputs.embedding is None else outputs.embedding[span]
        return Outputs(outputs.logits[span], embedding, NotKept())

    def has_block(self, view: Tensor, stop_at: str | None = None) -> bool:
        """Whether the outputs for the view are a slice of the outputs for a block."""
        return bool(self.batch and self.by_block and stop_at is None and self.batch.in_block(view))

    def _once(self, known: list[tuple], view: Tensor, stop_at: str | None, **options) -> Outputs:
        for known_view, depth, outputs in known:
            if known_view is view and depth == stop_at:
                return outputs
        self.forwards += 1
        outputs = self.teacher(view, stop_at=stop_at, **options)
        if known is self._of_block:
            outputs = outputs._replace(feature_maps=NotKept())
        known.append((view, stop_at, outputs))
        return outputs

    def begin_batch(self, batch: Batch | None) -> None:
        self._of_step.clear()
        if not (batch and self.batch and batch.block is self.batch.block):
            self._of_block.clear()
        self.batch = batch

    def save(self) -> None:
        if isinstance(self.teacher, CachedTeacher):
            self.teacher.cache.save()


@contextlib.contextmanager
def share_teacher(students: Sequence[Inputs], batches: Batches, cached: bool) -> Iterator[SharedTeacher | None]:
    """The teacher of students in lockstep, with its cache if `cached`; None without a teacher."""
    teacher = next((inputs.teacher for inputs in students if inputs.teacher), None)
    if teacher is None:
        yield None
        return
    methods = [inputs.run.build_method() for inputs in students if inputs.teacher]
    read = {part for method in methods for part in method.reads}
    stored = {part for method in methods if not method.mixes_images for part in method.reads}
    with (
        cached_teacher(teacher, students[0].data, batches, stored)
        if cached
        else contextlib.nullcontext(teacher) as source
    ):
        yield SharedTeacher(source, by_block=read <= set(PARTS))

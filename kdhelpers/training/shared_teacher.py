"""The teacher of a training loop: one forward pass for all students, and for the images of several steps at once."""

import contextlib
from collections.abc import Collection, Iterator, Sequence

from torch import Tensor

from kdhelpers.data import Batch, Batches
from kdhelpers.models import Outputs
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.teacher import Teacher
from kdhelpers.training.teacher_cache import PARTS, CachedTeacher, NotKept, cached_teacher


class SharedTeacher:
    """The teacher's outputs for the present step: computed once for all students, and for a whole block at once.

    The outputs of a frozen network in eval mode do not depend on the other images of a batch. read: the parts of the
    outputs that the students read; other maps are dropped. Maps are too large to keep for a block: with one of them the
    teacher runs step by step. `forwards` counts its calls.
    """

    def __init__(self, teacher: Teacher | CachedTeacher, read: Collection[str] = PARTS):
        self.teacher, self.read, self.by_block, self.forwards = teacher, set(read), set(read) <= set(PARTS), 0
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
        return outputs._replace(logits=outputs.logits[span], embedding=embedding)

    def has_block(self, view: Tensor, stop_at: str | None = None) -> bool:
        """Whether the outputs for the view are a slice of the outputs for a block."""
        return bool(self.batch and self.by_block and stop_at is None and self.batch.in_block(view))

    def _once(self, known: list[tuple], view: Tensor, stop_at: str | None, **options) -> Outputs:
        for known_view, depth, outputs in known:
            if known_view is view and depth == stop_at:
                return outputs
        self.forwards += 1
        outputs = self.teacher(view, stop_at=stop_at, **options)
        known.append((view, stop_at, self._read_parts(outputs)))
        return known[-1][2]

    def _read_parts(self, outputs: Outputs) -> Outputs:
        empty = {"feature_maps": NotKept(), "final_map": None, "pre_activations": None}
        return outputs._replace(**{part: value for part, value in empty.items() if part not in self.read})

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
        yield SharedTeacher(source, read)

"""Training steps as CUDA graphs: a GPU repeats the whole step of a student on one command of the host.

Small networks leave a GPU idle while the host launches their hundreds of operations. A graph holds the operations of
one step, with their addresses. So each batch is copied to tensors that stay, the static batch, as are the teacher's
outputs; learning rate and place in the log are tensors. Python values are constants of a graph: a new one is captured
in each epoch. The first steps of an epoch and its last, shorter batch run as usual.

Students in lockstep have a graph and a stream each, so that a GPU works on several of them at once.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from kdhelpers.data import Batch
from kdhelpers.device import autocast, synchronize
from kdhelpers.messages import inform
from kdhelpers.models import Outputs
from kdhelpers.training.shared_teacher import SharedTeacher
from kdhelpers.training.student import Training

FIRST_STEPS = 3  # before the first capture: they make the optimiser's state and choose the convolutions' kernels
LAUNCH_BOUND = 0.7  # share of a step's time that the host needs to launch it, from which graphs pay


class CaptureError(Exception):
    """A step that cannot be a graph, for instance because it waits for the device."""


class Cuda:
    """What only a GPU has. Tests put another class in its place."""

    def __init__(self, device: torch.device):
        self.device = device

    def stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)

    @contextlib.contextmanager
    def on(self, stream: torch.cuda.Stream) -> Iterator[None]:
        """Run the block on the stream, after all that the present one holds."""
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            yield

    def join(self, stream: torch.cuda.Stream) -> None:
        """Let the present stream wait for this one."""
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def capture(self, work: Callable[[], object], earlier: torch.cuda.CUDAGraph | None) -> torch.cuda.CUDAGraph:
        """Record `work` without running it. The memory of an `earlier` graph, which must not run again, is used again.

        `torch.cuda.graph` would empty the memory cache, which costs as much as many steps.
        """
        graph, pool = torch.cuda.CUDAGraph(), earlier.pool() if earlier else torch.cuda.graph_pool_handle()
        try:
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            work()
            graph.capture_end()
        except BaseException as error:  # an interruption must not leave the stream in a capture
            self._end_failed_capture(graph, pool)
            if isinstance(error, Exception):
                raise CaptureError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
            raise
        return graph

    def _end_failed_capture(self, graph: torch.cuda.CUDAGraph, pool: tuple[int, int]) -> None:
        """If the capture is invalid, `capture_end` raises before it restores the memory allocator."""
        try:
            graph.capture_end()
        except RuntimeError:
            with contextlib.suppress(Exception):
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)


class HeldTeacher:
    """The teacher's outputs for the static batch, at addresses that stay; other images it computes as usual."""

    def __init__(self, teacher: SharedTeacher, static: Batch, gpu: Cuda):
        self._teacher, self._static, self._gpu, self._stream = teacher, static, gpu, gpu.stream()
        self._held: dict[tuple[int, str | None], tuple[Tensor, Outputs]] = {}  # by id of the view, and depth
        self._captured, self._graph = [], None

    def __call__(self, view: Tensor, stop_at: str | None = None) -> Outputs:
        if not any(view is own for own in self._static.tensors):
            return self._teacher(view, stop_at)
        key = id(view), stop_at
        if key not in self._held:
            self._held[key] = view, _kept(self._teacher(view, stop_at))
        return self._held[key][1]

    def forget(self) -> None:
        """Let go of all outputs: in the next epoch the students may read others, and their graphs are new."""
        self._held.clear()
        self._captured = []

    def refresh(self, batch: Batch) -> None:
        """Compute the outputs that the students have read so far for a new batch, which the static batch holds now."""
        self._teacher.begin_batch(self._static.standing_for(batch))
        live = [key for key, (view, _) in self._held.items() if not self._teacher.has_block(view, key[1])]
        for key in self._held.keys() - live:
            self._copy(key)
        if live != self._captured:
            with self._gpu.on(self._stream):
                self._graph = self._gpu.capture(lambda: [self._copy(key) for key in live], self._graph)
            self._captured = live
        if live:
            with self._gpu.on(self._stream):
                self._graph.replay()
            self._gpu.join(self._stream)

    def _copy(self, key: tuple[int, str | None]) -> None:
        view, held = self._held[key]
        for kept, fresh in zip(_tensors(held), _tensors(self._teacher(view, key[1])), strict=True):
            kept.copy_(fresh)


def _tensors(outputs: Outputs) -> list[Tensor]:
    parts = (part.values() if isinstance(part, dict) else (part,) for part in outputs)
    return [value for part in parts for value in part if value is not None]


def _kept(part: Outputs | dict | Tensor | None) -> Outputs | dict | Tensor | None:
    """A copy of outputs or of one of their parts."""
    if isinstance(part, Outputs):
        return Outputs(*map(_kept, part))
    if isinstance(part, dict):
        return type(part)({name: value.clone() for name, value in part.items()})
    return None if part is None else part.clone()


class GraphedStep:
    """The steps of one student, on a stream of its own."""

    def __init__(self, training: Training, teacher: HeldTeacher | None, gpu: Cuda):
        self._training, self._gpu, self.stream = training, gpu, gpu.stream()
        self._graph, self._captured, self._usual_steps = None, False, FIRST_STEPS
        if training.module.teacher:
            training.module.set_teacher(teacher)
        for group in training.optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], device=training.device)

    def __call__(self, static: Batch) -> None:
        with self._gpu.on(self.stream):
            self._training.set_learning_rate()
            with self._training.random.recoverable():
                self._learn(static)
        if not self._training.log.sizes:  # the next student may read outputs of the teacher that this step computed
            self._gpu.join(self.stream)
        self._training.log.sizes.append(len(static.labels))

    def _learn(self, static: Batch) -> None:
        if len(self._training.log.sizes) < self._usual_steps:
            self._captured = False
            self._training.learn(static)
            return
        if not self._captured:
            self._graph = self._gpu.capture(lambda: self._training.learn(static), self._graph)
            self._captured, self._usual_steps = True, 1
        self._graph.replay()


class UsualSteps:
    """Steps of students in lockstep whose operations the host launches one by one."""

    def __init__(self, teacher: SharedTeacher | None = None):
        self._teacher = teacher

    def __call__(self, trainings: Sequence[Training], batch: Batch) -> None:
        if self._teacher:
            self._teacher.begin_batch(batch)
        for training in trainings:
            training.step(batch)

    def end_epoch(self) -> None:
        if self._teacher:
            self._teacher.begin_batch(None)  # frees the last batch


class GraphedSteps(UsualSteps):
    """Steps of students in lockstep as CUDA graphs, if the host launches them slower than the GPU runs them.

    always: use graphs without that measurement. If a step cannot be captured, all go on as usual steps.
    """

    def __init__(
        self, teacher: SharedTeacher | None, device: torch.device, always: bool = False, gpu: Cuda | None = None
    ):
        super().__init__(teacher)
        self._device, self._gpu, self._decided, self._pays = device, gpu or Cuda(device), always, True
        self._static: Batch | None = None
        self._held: HeldTeacher | None = None
        self._students: dict[Training, GraphedStep] = {}

    def __call__(self, trainings: Sequence[Training], batch: Batch) -> None:
        if self._static is None:
            self._static = batch.clone()
            self._held = HeldTeacher(self._teacher, self._static, self._gpu) if self._teacher else None
        self._join()  # the static batch changes after all students have read it
        if not (self._pays and self._static.has_shapes_of(batch)):
            super().__call__(trainings, batch)
            return
        rest = list(trainings)
        try:
            self._static.fill(batch)
            if self._held:
                with autocast(self._device, rest[0].precision):  # as in a step
                    self._held.refresh(batch)
            self._measured(rest)
        except CaptureError as error:
            inform(f"CUDA graphs: {error}; the steps run as usual")
            self._pays = False
        if not self._pays and rest:  # the error, which held the memory of the step, is gone
            self._join()
            for name in ("grad_scale", "found_inf"):  # GradScaler removes them after a step that has not failed
                vars(rest[0].optimizer).pop(name, None)
            super().__call__(rest, batch)

    def _measured(self, rest: list[Training]) -> None:
        """The steps of `rest`; of the first ones the last is timed, to decide if graphs pay."""
        if self._decided or len(rest[0].log.sizes) < FIRST_STEPS - 1:
            self._step(rest)
            return
        synchronize(self._device)
        start = time.perf_counter()
        self._step(rest)
        launched = time.perf_counter() - start
        synchronize(self._device)
        self._pays, self._decided = launched > LAUNCH_BOUND * (time.perf_counter() - start), True
        if not self._pays:
            inform("CUDA graphs: the GPU takes longer for a step than its launch; the steps run as usual")

    def _step(self, rest: list[Training]) -> None:
        """The steps of `rest`, from which each student is removed when its step is done."""
        while rest:
            if rest[0] not in self._students:
                self._students[rest[0]] = GraphedStep(rest[0], self._held, self._gpu)
            self._students[rest[0]](self._static)
            del rest[0]

    def _join(self) -> None:
        for student in self._students.values():
            self._gpu.join(student.stream)

    def end_epoch(self) -> None:
        self._join()
        if self._held:
            self._held.forget()
        super().end_epoch()


def steps_of(device: torch.device, teacher: SharedTeacher | None, graphs: bool | None, compiled: bool) -> UsualSteps:
    """Steps as CUDA graphs on a GPU, unless `graphs` is False; None lets a measurement decide."""
    if device.type != "cuda" or graphs is False:
        return UsualSteps(teacher)
    reason = "torch.compile" if compiled else "torchrun" if dist.is_initialized() else ""
    if reason:
        inform(f"CUDA graphs: not with {reason}; the steps run as usual")
        return UsualSteps(teacher)
    return GraphedSteps(teacher, device, always=bool(graphs))

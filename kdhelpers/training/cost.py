"""What a step of each method costs: time, images, memory and parameters, measured in turns on noise."""

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdhelpers.data import Batch, Batches, Data, Split
from kdhelpers.device import DTYPES, pick_device, resolve_precision, synchronize
from kdhelpers.models import Outputs
from kdhelpers.training.graphs import steps_of
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.loop import batches_of
from kdhelpers.training.run import Run
from kdhelpers.training.shared_teacher import share_teacher
from kdhelpers.training.student import Training
from kdhelpers.training.teacher import Teacher

MOST_BYTES = 2**28  # of the noise
WARM_UP = {"cpu": 1, "cuda": 5}  # steps; on a GPU a measurement and the capture of a graph are among them


@dataclass(frozen=True)
class StepCost:
    """Of one step, its batch of augmented images included. Images are counted per labelled image of the batch."""

    seconds: tuple[float, ...]  # a round each
    reference_seconds: tuple[float, ...]  # of the reference's step that was timed just before
    student_images: float  # that the student computes
    teacher_images: float  # that the live teacher computes
    kept_mib: float  # tensors that wait for the backward pass
    trained_parameters: int  # that the method adds to the student's

    @property
    def ratio(self) -> float:
        """Time relative to the reference's: the median over the rounds. Other work slows both steps of a round."""
        return statistics.median(own / its for own, its in zip(self.seconds, self.reference_seconds, strict=True))


class CountedTeacher(Teacher):
    """Counts the images that it computes."""

    images = 0

    def __call__(self, view: Tensor, stop_at: str | None = None) -> Outputs:
        self.images += len(view)
        return super().__call__(view, stop_at)


def step_costs(
    runs: Mapping[str, Run],
    reference: str,
    teacher: nn.Module | None,
    data: Data,
    rounds: int,
    device: str | None = None,
) -> dict[str, StepCost]:
    """The cost of each run's step, by its key; each is timed next to a step of the run `reference`, `rounds` times.

    teacher: a network of the teacher's architecture; its weights do not matter. Each run trains alone, behind a live
    teacher. Nothing is stored.
    """
    device = pick_device(device)
    shared: dict[tuple, Batches] = {}
    cases = {key: _Case(run, teacher, data, device, shared) for key, run in runs.items()}
    for _ in range(WARM_UP.get(device.type, 1)):
        for case in cases.values():
            case.seconds()
    timed: dict[str, list[tuple[float, float]]] = {key: [] for key in cases}
    for _ in range(rounds):
        for key, case in cases.items():
            timed[key].append((cases[reference].seconds(), case.seconds()))
    return {key: case.cost(timed[key]) for key, case in cases.items()}


class _Case:
    """One run, a step at a time. Runs that need the same views share their batches."""

    def __init__(self, run: Run, network: nn.Module | None, data: Data, device: torch.device, shared: dict):
        precision, method = resolve_precision(run.precision, device), run.build_method()
        self.teacher = None
        if method.needs_teacher:
            before = "pre_activations" in method.reads
            self.teacher = CountedTeacher(network, device, DTYPES[precision], pre_activations=before)
        inputs = Inputs(run, data, device, precision, self.teacher)
        key = run.augmentation, method.views, method.weak_view, method.uses_unlabelled
        batches = shared[key] if key in shared else shared.setdefault(key, batches_of([inputs]))
        with share_teacher([inputs], batches, cached=False) as behind:
            self.training = Training(inputs, batches, behind)
        self.training.epochs_done = method.stage_epochs  # a first stage trains only a part of the student
        self._steps, self._seen = steps_of(device, behind, None, False), 0
        self._batches = self._endless()
        self._first_step()

    def _endless(self) -> Iterator[Batch]:
        while True:
            self.training.begin_epoch()
            whole, batches = self.training.run.batch_size, self.training.batches.epoch(self.training.epoch)
            yield from (batch for batch in batches if len(batch.labels) == whole)
            self._steps.end_epoch()

    def _first_step(self) -> None:
        """A step that counts the images and the bytes that are kept."""
        student, kept = self.training.student, {}
        own = {weight.untyped_storage().data_ptr() for weight in self.training.module.parameters()}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        if self.teacher:
            self.teacher.images = 0  # making a training asks for shapes
        counter = student.register_forward_pre_hook(self._count)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            batch = next(self._batches)
            self._steps([self.training], batch)
        counter.remove()
        count = len(batch.labels)
        self._images = self._seen / count, self.teacher.images / count if self.teacher else 0.0
        self._kept_mib = sum(kept.values()) / 2**20

    def _count(self, _module: nn.Module, arguments: tuple) -> None:
        self._seen += len(arguments[0])

    def seconds(self) -> float:
        device = self.training.device
        synchronize(device)
        start = time.perf_counter()
        self._steps([self.training], next(self._batches))
        synchronize(device)
        return time.perf_counter() - start

    def cost(self, timed: list[tuple[float, float]]) -> StepCost:
        added = sum(weight.numel() for weight in self.training.method.parameters() if weight.requires_grad)
        reference, own = zip(*timed, strict=True)
        return StepCost(own, reference, *self._images, self._kept_mib, added)


def noise(dataset: str, count: int, side: int, classes: int) -> Data:
    """Training images of a data set's shape, none held out; at most MOST_BYTES of them."""
    generator = torch.Generator().manual_seed(0)
    count = min(count, MOST_BYTES // (3 * side**2))
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    train = Split(images, torch.arange(count) % classes)
    none, half = train.select(torch.arange(0)), (0.5, 0.5, 0.5)
    return Data(dataset, train, none, none, [str(label) for label in range(classes)], None, None, half, half)

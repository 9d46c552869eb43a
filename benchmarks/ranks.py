"""A training by several processes against one process at the same global batch: how far apart are the weights?

Every method trains a small student for two epochs by 2 and by 3 gloo ranks and by one process, all in float64. The last
batch of an epoch is uneven. What is trained and the buffers of the method are compared: the largest difference of a
number.

One process computes a step in one of two ways. "whole": the global batch as one, as `fit` does without ranks. In the
ranks BatchNorm then takes the images of all ranks, too: its statistics alone would differ. "shares": each rank's images
with that rank's random numbers and BatchNorm of its own, the losses averaged. It is the definition for methods that
draw random numbers for the images of a rank: placebos and mixed images.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import row
from kdhelpers.data import Batches, BatchSpec, Data
from kdhelpers.data.dataset import Unlabelled
from kdhelpers.methods import METHODS
from kdhelpers.methods.parts.distributed import gather
from kdhelpers.models import build_model
from kdhelpers.training.cost import noise
from kdhelpers.training.epoch_log import total
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.loop import batches_of
from kdhelpers.training.random_stream import RandomStream
from kdhelpers.training.run import Run
from kdhelpers.training.student import Training, seed_everything
from kdhelpers.training.teacher import Teacher

WORLDS = (2, 3)
TOLERANCE = 1e-9  # of weights up to about 1, in float64: the sums have another order
CLASSES, IMAGES, SIDE, BATCH = 4, 32, 8, 12  # steps of 12, 12 and 8 images, of which 3 ranks take 6
SMALL = {
    "crd": {"negatives": IMAGES, "dim": 8},  # all images of other classes: the draw makes no difference
    "cocord": {"queue_size": 48, "hidden_dim": 8, "dim": 8, "predictor_dim": 8},
    "hints": {"hint_epochs": 1},  # an epoch of each stage
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A method with settings. `shares`: what it is compared with, see above."""

    name: str
    method: str
    hyperparameters: dict = dataclasses.field(default_factory=dict)
    placebo: str = ""
    shares: bool = False

    def run(self) -> Run:
        method = METHODS[self.method](**self.hyperparameters)
        fields = {"unlabelled": "test"} if method.uses_unlabelled else {}
        fields |= {"augmentation": "crop flip cutout=4"} if method.weak_view or method.needs_strong_view else {}
        fields |= {"teacher": "resnet14"} if method.needs_teacher else {}
        common = {"dataset": "cifar10", "model": "resnet8", "selection": "last", "val_fraction": 0, "precision": "fp32"}
        own = {"method": self.method, "hyperparameters": self.hyperparameters, "placebo": self.placebo}
        return Run(**common, **own, **fields, batch_size=BATCH, epochs=9, lr=0.01)


def cases() -> list[Case]:
    """Every method, the placebos, mixing by CutMix, and KD with BatchNorm of each rank."""
    every = [Case(name, name, SMALL.get(name, {}), shares=METHODS[name].mixes_images) for name in METHODS]
    mixed = Case("lm_mixed, cutmix", "lm_mixed", {"mix": "cutmix"}, shares=True)
    placebos = [Case(f"lm, placebo {kind}", "lm", placebo=kind, shares=True) for kind in ("shuffled", "mean")]
    return [*every, mixed, *placebos, Case("lm, BatchNorm of each rank", "lm", shares=True)]


def run(threads: int = 1) -> list[dict]:
    """A row for each number of ranks and each case."""
    rows, goal = [], f"<= {TOLERANCE:g}"
    for world in WORLDS:
        for name, difference in differences(cases(), world).items():
            rows.append(row(f"{name}: {world} ranks", difference, "of a weight", None, goal, difference <= TOLERANCE))
    return rows


def differences(chosen: list[Case], world: int, epochs: int = 2) -> dict[str, float]:
    """By case the largest difference of a number between any rank and the one process."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (world, folder, chosen, epochs), nprocs=world)
        ranks = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(world)]
    with float64():
        alone = {case.name: (by_shares if case.shares else whole)(case, epochs, world) for case in chosen}
    return {name: max(_largest_difference(state, rank[name]) for rank in ranks) for name, state in alone.items()}


def _largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return max((value - second[name]).abs().max().item() for name, value in first.items())


def _rank(rank: int, world: int, folder: str, chosen: list[Case], epochs: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    states = {}
    with float64():
        for case in chosen:
            with contextlib.nullcontext() if case.shares else batchnorm_over_ranks():
                states[case.name] = whole(case, epochs)
    torch.save(states, f"{folder}/{rank}.pt")
    dist.barrier()  # the end of a rank closes the connections of the others
    dist.destroy_process_group()


def whole(case: Case, epochs: int, world: int = 1) -> dict[str, Tensor]:
    """The state after a training as `fit` does it, without the images that `world` ranks cannot share equally."""
    training = training_of(case)
    for _ in epochs_of(training, epochs):
        for batch in training.batches.epoch(training.epoch):
            shared = batch.cut(slice(len(batch.labels) // world * world))
            training.step(shared._replace(unlabelled=batch.unlabelled))
    return state_of(training, case)


def by_shares(case: Case, epochs: int, world: int) -> dict[str, Tensor]:
    """The state after a training of one process that takes the ranks' shares of each step in turn."""
    training = training_of(case)
    specs = [dataclasses.replace(training.batches.spec, rank=rank, world=world) for rank in range(world)]
    shares, streams = (
        [in_float64(training.data, spec) for spec in specs],
        [RandomStream(training.device) for _ in specs],
    )
    for epoch in epochs_of(training, epochs):
        for rank, stream in enumerate(streams):
            with stream:
                seed_everything(training.run.seed, "epoch", epoch, rank)
        for batches in zip(*(share.epoch(epoch) for share in shares), strict=True):
            training.set_learning_rate()
            training.optimizer.zero_grad()
            for batch, stream in zip(batches, streams, strict=True):
                with stream:
                    terms, _ = training.module(batch.first(training.method.views), epoch)
                    (total(case.method, terms) / world).backward()
            training.optimizer.step()
            training.log.sizes.append(BATCH)
    return state_of(training, case)


def epochs_of(training: Training, epochs: int) -> Iterator[int]:
    for _ in range(epochs):
        training.begin_epoch()
        yield training.epoch
        training.epochs_done += 1


def training_of(case: Case) -> Training:
    settings = case.run()
    before_relu = "pre_activations" in settings.build_method().reads
    teacher = Teacher(teacher_network(), dtype=torch.float64, pre_activations=before_relu) if settings.teacher else None
    inputs = Inputs(settings, images(), torch.device("cpu"), "fp32", teacher)
    return Training(inputs, in_float64(inputs.data, batches_of([inputs]).spec))


def in_float64(data: Data, spec: BatchSpec) -> Batches:
    return Batches(data, spec, dtype=torch.float64)


def images() -> Data:
    data = noise("cifar10", IMAGES, SIDE, CLASSES)
    return dataclasses.replace(data, unlabelled=Unlabelled(data.train.images.flip(0), [""] * IMAGES, "test"))


def teacher_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model("resnet14", CLASSES)


def state_of(training: Training, case: Case) -> dict[str, Tensor]:
    """What is trained and the method's buffers; with BatchNorm of each rank the parameters alone."""
    parts = {"network": training.network, "method": training.method}
    values = (part.named_parameters() if case.shares else part.state_dict().items() for part in parts.values())
    named = zip(parts, values, strict=True)
    return {f"{part}.{name}": value.detach().clone() for part, each in named for name, value in each}


@contextlib.contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def batchnorm_over_ranks() -> Iterator[None]:
    """BatchNorm of the images of all ranks: torch has it on GPUs alone."""
    usual = F.batch_norm

    def over_ranks(images: Tensor, mean, variance, weight=None, bias=None, training=False, *rest) -> Tensor:
        if not training:
            return usual(images, mean, variance, weight, bias, training, *rest)
        everything = usual(gather(images), mean, variance, weight, bias, training, *rest)
        return everything[dist.get_rank() :: dist.get_world_size()]

    F.batch_norm = over_ranks
    try:
        yield
    finally:
        F.batch_norm = usual

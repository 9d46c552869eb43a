"""Trainings of the package's own loop on noise, as `fit_sweep` makes them, without files."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from benchmarks import pair
from benchmarks.gpu.session import Session
from benchmarks.gpu.timing import Marks, Window
from kdhelpers.data import Data, Unlabelled
from kdhelpers.device import DTYPES
from kdhelpers.display.progress import Progress
from kdhelpers.models import build_model
from kdhelpers.training.graphs import steps_of
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.loop import batches_of, train_epoch
from kdhelpers.training.run import Run
from kdhelpers.training.shared_teacher import share_teacher
from kdhelpers.training.student import Training
from kdhelpers.training.teacher import Teacher


class Clock(Progress):
    """Times the steps after the first quarter, in which an epoch begins and graphs are captured."""

    def __init__(self, device: torch.device, steps: int):
        self._marks, self._first, self._last = Marks(device), max(1, steps // 4), steps

    def step(self, step: int) -> None:
        if step in (self._first, self._last):
            self._marks.set()

    def window(self) -> Window:
        return self._marks.window(self._last - self._first)


class Students:
    """Trainings in lockstep, with the teacher that they share.

    graphs: as in `fit`. whole: the data set of which `data` are some batches; a memory bank has its size.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        data: Data,
        device: torch.device,
        teacher: Teacher | None = None,
        cached: bool = False,
        graphs: bool | None = False,
        whole: Data | None = None,
    ):
        self._stack = contextlib.ExitStack()
        inputs = [Inputs(run, data, device, run.precision, teacher if run.teacher else None) for run in runs]
        self.batches = batches_of(inputs)
        self.teacher = self._stack.enter_context(share_teacher(inputs, self.batches, cached))
        inputs = [replace(each, data=whole or data) for each in inputs]
        self.trainings = [Training(each, self.batches, self.teacher if each.teacher else None) for each in inputs]

        self.steps = steps_of(device, self.teacher, graphs, compiled=False)

    def epoch(self, progress: Progress | None = None) -> None:
        train_epoch(self.trainings, progress or Progress(), self.steps)

    def timed_epoch(self) -> Window:
        clock = Clock(self.batches.device, len(self.batches))
        self.epoch(clock)
        return clock.window()

    def close(self) -> None:
        self._stack.close()


def run_of(session: Session, model: str, **fields) -> Run:
    defaults = {
        "dataset": "cifar100",
        "epochs": 1000,
        "batch_size": session.scale.batch,
        "precision": session.precision,
        "selection": "last",
        "val_fraction": 0,
    }
    return Run(model=model, **(defaults | fields))


def noise(session: Session, steps: int, batch: int | None = None, side: int | None = None, unlabelled=False) -> Data:
    """As many images as `steps` batches need."""
    count = steps * (batch or session.scale.batch)
    split = pair.images_and_labels(count, side or session.scale.side)
    data = pair.data_of(split)
    return replace(data, unlabelled=Unlabelled(split.images, [""] * count, "test")) if unlabelled else data


def teacher_of(session: Session, model: str, precision: str | None = None, side: int | None = None, **options):
    """An untrained teacher whose BatchNorm statistics fit its activations, as a trained one's do."""
    return Teacher(settled(session, model, side, **options), session.device, DTYPES[precision or session.precision])


@torch.no_grad()
def settled(session: Session, model: str, side: int | None = None, **options) -> nn.Module:
    torch.manual_seed(1)
    network = build_model(model, pair.CLASSES, **options).to(session.device)
    side = side or session.scale.side
    for _ in range(1 if session.small else 3):
        network(torch.randn(max(session.scale.batch, 4), 3, side, side).to(session.device))
    return network.eval()

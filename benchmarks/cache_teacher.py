"""Goal 4: logit matching with stored teacher outputs, resnet32x4 -> resnet8x4, batch 64, crop and flip.

Ours with every view in the table, against the same loop by cross-entropy alone, with the live teacher, and peer-style
(`kd_step`'s). Each case has a process of its own; they take turns. Then the forwards of a sweep: eight methods, one
after the other at the published 240 epochs with one seed, live and with one table, counted in images that the teacher
really saw (a small student and few images: the count depends on neither). Equality with the live teacher, bit for bit,
is tests/test_outputs.py's.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable

import torch

from benchmarks import pair
from benchmarks.measure import Timing, interleave_apart, row
from kdhelpers.device import synchronize
from kdhelpers.display.progress import Progress
from kdhelpers.models import build_model
from kdhelpers.training.graphs import UsualSteps
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.loop import batches_of, train_epoch
from kdhelpers.training.run import Run
from kdhelpers.training.shared_teacher import SharedTeacher
from kdhelpers.training.student import Training
from kdhelpers.training.teacher import Teacher
from kdhelpers.training.teacher_cache import cached_teacher

GOAL, FORWARDS_GOAL = 1.05, 0.10
IMAGES, VIEWS, EPOCHS, SMALL = 50_000, 162, 240, 8
HEADS = {"queue_size": 64, "hidden_dim": 16, "dim": 16, "predictor_dim": 16}
METHODS = {
    "lm": {},
    "dkd": {},
    "lm_standardized": {},
    "dkd_standardized": {},
    "crd": {"negatives": 4, "dim": 16},
    "crd_inbatch": {"dim": 16},
    "cocord": HEADS,
    "cocord + kd": HEADS | {"kd_weight": 1.0},
}


def run(threads: int = 1, device: str = "cpu", rounds: int = 15) -> list[dict]:
    torch.set_num_threads(threads)
    precisions = pair.precisions(device)
    kinds = [(kind, precision) for precision in precisions for kind in ("cross-entropy alone", "stored", "live")]
    timings = interleave_apart(prepare, [("peer-style", "fp32"), *kinds], threads, rounds, device)
    rows = [row(name, timing, "ms/step", scale=1e3) for name, timing in timings.items()]
    rows += [line for precision in precisions for line in ratios(timings, precision)]
    return [*rows, *table_rows(precisions[-1], device), *sweep_rows(device)]


def prepare(kind: str, precision: str, threads: int, device: str) -> Callable[[], object]:
    """What one step of a case runs."""
    torch.set_num_threads(threads)
    network = pair.teacher_network()
    if kind == "peer-style":
        peer = pair.PeerStyle(network, pair.student_network(), device)
        batches = pair.pil_batches(pair.images_and_labels(pair.BATCH))
        return lambda: peer.train(batches, steps=1)
    training = pair.ours(network, precision, steps=1, taught=kind != "cross-entropy alone", device=device)
    shared = _from_a_full_table(training) if kind == "stored" else None
    return lambda: train_epoch([training], Progress(), UsualSteps(shared))


def _from_a_full_table(training: Training) -> SharedTeacher:
    """Every view has its row already; of noise, which takes as long to look up."""
    os.environ["KD_ROOT"] = tempfile.mkdtemp()
    teacher = training.module.teacher
    stored = cached_teacher(teacher, training.data, training.batches, {"logits"}).__enter__()
    keys = torch.randperm(len(training.data.train) * VIEWS)
    stored.cache.add(keys, torch.randn(len(keys), pair.CLASSES))
    shared = SharedTeacher(stored)
    training.module.set_teacher(shared)
    return shared


def ratios(timings: dict[str, Timing], precision: str) -> list[dict]:
    stored = timings[f"stored {precision}"]
    over = stored.ratio_to(timings[f"cross-entropy alone {precision}"])
    live, peer = timings[f"live {precision}"].ratio_to(stored), timings["peer-style fp32"].ratio_to(stored)
    return [
        row(f"stored / cross-entropy alone, {precision}", over, "x", over, f"<= {GOAL}", over <= GOAL),
        row(f"live / stored, {precision}", live, "x", live),
        row(f"peer-style / stored, {precision}", peer, "x", peer),
    ]


def table_rows(precision: str, device: str) -> list[dict]:
    """What all views of 50,000 images take: bytes of logits, and the teacher's time for them."""
    training = pair.ours(pair.teacher_network(), precision, steps=1, device=device)
    teacher, view = training.module.teacher, next(training.batches.epoch(1)).views[0]
    teacher(view)
    start = time.perf_counter()
    for _ in range(5):
        said = teacher(view)
    synchronize(training.device)
    per_image = (time.perf_counter() - start) / 5 / len(view)
    rows, size = IMAGES * VIEWS, said.logits.element_size() * pair.CLASSES
    seen = VIEWS * (1 - (1 - 1 / VIEWS) ** EPOCHS)
    return [
        row(f"all {rows:,} views of 50,000 images, {precision} logits", rows * size / 2**30, "GiB"),
        row("the teacher's time for all of them, if it filled the table at once", rows * per_image / 3600, "hours"),
        row(f"what {EPOCHS} epochs see of the {VIEWS} views of an image", seen, "views"),
    ]


def sweep_rows(device: str) -> list[dict]:
    """How many images the teacher sees in a sweep of eight methods with a table; live it sees all that it is asked."""
    os.environ["KD_ROOT"] = tempfile.mkdtemp()
    torch.manual_seed(0)
    teacher = Teacher(build_model("resnet8", pair.CLASSES), device)
    counts = [_train(teacher, name.split()[0], hyperparameters, device) for name, hyperparameters in METHODS.items()]
    seen, asked = (sum(column) for column in zip(*counts, strict=True))
    ratio, name = seen / asked, f"{len(METHODS)} methods, {EPOCHS} epochs: images that the teacher saw, stored / live"
    return [row(name, ratio, "x", ratio, f"<= {FORWARDS_GOAL}", ratio <= FORWARDS_GOAL)]


def _train(teacher: Teacher, method: str, hyperparameters: dict, device: str) -> tuple[int, int]:
    """All epochs of a small run, by the package's loop: images that the teacher saw, and that it was asked about."""
    data = pair.data_of(pair.images_and_labels(SMALL))
    run = Run(
        dataset="cifar100",
        model="resnet8",
        teacher="resnet8",
        method=method,
        hyperparameters=hyperparameters,
        batch_size=SMALL,
        epochs=EPOCHS,
        lr=0.01,
        precision="fp32",
        selection="last",
        val_fraction=0,
    )
    batches = batches_of([Inputs(run, data, torch.device(device), run.precision, teacher)])
    with cached_teacher(teacher, data, batches, {"logits", "embedding"}) as stored:
        shared = SharedTeacher(stored)
        training = pair.training_of(run, data, shared, batches, device)
        stored.forwards = shared.forwards = 0  # making a training asks for shapes
        for epoch in range(EPOCHS):
            train_epoch([training], Progress(), UsualSteps(shared))
            training.epochs_done = epoch + 1
        stored.cache.save()
    return stored.forwards, SMALL * shared.forwards

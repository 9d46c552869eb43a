"""Lockstep: SupCRD's hybrid at four lambdas, resnet32x4 -> resnet8, behind one teacher, against four single runs.

Both are epochs of the package's loop, data included, that take turns in one process and go on from where they stood;
in the end the weights of the students are compared bit for bit. Bound: with T the teacher's time in a single run and S
the student's, a sweep of 4 cannot take less than (T + 4 S) / (4 (T + S)) of four runs; T is timed in the same rounds,
as bare forwards on a run's views. CIFAR-100's own images where they are at hand, else noise of their shape.
"""

from __future__ import annotations

import copy

import torch

from benchmarks import pair
from benchmarks.measure import interleave, row
from kdhelpers import artifacts, load_data
from kdhelpers.data import Batches, Data
from kdhelpers.display.progress import Progress
from kdhelpers.training.cost import CountedTeacher
from kdhelpers.training.graphs import UsualSteps
from kdhelpers.training.loop import train_epoch
from kdhelpers.training.run import Run
from kdhelpers.training.shared_teacher import SharedTeacher
from kdhelpers.training.student import Training
from kdhelpers.training.teacher import Teacher

LAMBDAS, BATCH, STEPS = (0.3, 0.5, 0.7, 0.9), 32, 2
FORWARDS_GOAL, TIME_GOAL = 1 / len(LAMBDAS), 1


def run(threads: int = 1, device: str = "cpu", rounds: int = 4) -> list[dict]:
    torch.set_num_threads(threads)
    data, network = images(), pair.teacher_network()
    for_one, for_all = (CountedTeacher(copy.deepcopy(network), device) for _ in range(2))
    own, shared = SharedTeacher(for_one), SharedTeacher(for_all)
    alone = [training(lam, data, own, device=device) for lam in LAMBDAS]
    batches = alone[0].batches
    together = [training(lam, data, shared, batches, device) for lam in LAMBDAS]
    for_one.images = for_all.images = 0  # making a training asks for shapes
    views = [view for batch in batches.epoch(1) for view in batch.views]
    bare = Teacher(network, device)
    cases = {
        f"{len(LAMBDAS)} single runs": lambda: [train_epoch([each], Progress(), UsualSteps(own)) for each in alone],
        "lockstep": lambda: train_epoch(together, Progress(), UsualSteps(shared)),
        "teacher of one run": lambda: [bare(view) for view in views],
    }
    timings = interleave(cases, rounds, device)
    rows = [row(name, timing, "ms/step", scale=1e3 / STEPS) for name, timing in timings.items()]
    single, lockstep, teacher = timings.values()
    rows += time_rows(lockstep.ratio_to(single), teacher.ratio_to(single))
    share = for_all.images / for_one.images
    met = share <= FORWARDS_GOAL
    rows.append(row("lockstep / single runs, the teacher's images", share, "x", share, f"<= {FORWARDS_GOAL}", met))
    pairs = zip(alone, together, strict=True)
    apart = sum(differing(first.network, second.network) for first, second in pairs)
    return [*rows, row("tensors of the students that differ in a bit", apart, "tensors", None, "0", apart == 0)]


def time_rows(ratio: float, share: float) -> list[dict]:
    """share: T / (4 (T + S)), the teacher's time in one run over the time of the four."""
    bound = 1 - (len(LAMBDAS) - 1) * share
    return [
        row("lockstep / single runs, time", ratio, "x", ratio, f"< {TIME_GOAL}", ratio < TIME_GOAL),
        row("bound (T + 4 S) / (4 (T + S))", bound, "x", bound),
    ]


def images() -> Data:
    """As many images as the steps of an epoch need, none held out."""
    count = STEPS * BATCH
    there = (artifacts.data_root() / "cifar-100-python" / "train").is_file()
    noise = pair.images_and_labels
    return pair.data_of(load_data("cifar100").train.select(torch.arange(count)) if there else noise(count))


def training(
    lam: float, data: Data, teacher: Teacher | SharedTeacher, batches: Batches | None = None, device: str = "cpu"
) -> Training:
    run = Run(
        dataset="cifar100",
        model="resnet8",
        teacher="resnet32x4",
        method="supcrd",
        hyperparameters={"lam": lam},
        batch_size=BATCH,
        epochs=1000,
        selection="last",
        val_fraction=0,
        precision="fp32",
    )
    return pair.training_of(run, data, teacher, batches, device)


def differing(first: torch.nn.Module, second: torch.nn.Module) -> int:
    """How many tensors of two state_dicts differ in any bit."""
    others = second.state_dict()
    return sum(not torch.equal(value, others[name]) for name, value in first.state_dict().items())

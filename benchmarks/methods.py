"""A training step of every method relative to KD's, resnet32x4 -> resnet8x4, batch 64, at default hyperparameters.

Each step, with a live teacher and its batch of augmented images, is timed next to a step of KD. A case's name has the
views that a step makes of an image, and the images that student and teacher compute for it. Bound: with T the time of
the teacher's bare forward and S of the student's bare forward and backward, (s S + t T) / (S + T) for a method that
computes s and t images: the ratio of a loss that costs nothing. The column `ratio` is measured / bound.
"""

from __future__ import annotations

import statistics

import torch

from benchmarks import pair
from benchmarks.measure import interleave, row
from kdhelpers.methods import METHODS
from kdhelpers.training.cost import StepCost, noise, step_costs
from kdhelpers.training.run import Run

STRONG = "crop flip randaugment=2/10 cutout=8"  # of methods that compare a weak and a strong view
IMAGES = 50_000  # a memory bank has a row for each


def run(threads: int = 1, device: str = "cpu", rounds: int = 5) -> list[dict]:
    torch.set_num_threads(threads)
    network, runs = pair.teacher_network(), {name: run_of(name) for name in METHODS}
    runs = {name: each for name, each in runs.items() if not each.build_method().uses_unlabelled}
    costs = step_costs(runs, "lm", network, noise("cifar100", IMAGES, 32, pair.CLASSES), rounds, device)
    rows = [row("lm", 1e3 * statistics.median(costs["lm"].seconds), "ms/step")]
    teacher_share = share_of_teacher(network, device, rounds)
    for name, cost in costs.items():
        over, bound = cost.ratio, bound_of(cost, teacher_share)
        rows.append(row(case_of(name, runs[name], cost), over, "x KD", over / bound))
    return rows


def run_of(method: str) -> Run:
    unlabelled = {"unlabelled": "test"} if METHODS[method]().uses_unlabelled else {}
    teacher = "resnet32x4" if METHODS[method].needs_teacher else None
    fields = {"dataset": "cifar100", "model": "resnet8x4", "method": method, "teacher": teacher, **unlabelled}
    fields |= {"augmentation": STRONG} if METHODS[method]().weak_view else {}
    return Run(**fields, batch_size=pair.BATCH, epochs=240, selection="last", val_fraction=0, precision="fp32")


def share_of_teacher(network: torch.nn.Module, device: str, rounds: int) -> float:
    """T / (S + T) of the bare passes."""
    cases = {"student": pair.bare(None, "fp32", device=device), "both": pair.bare(network, "fp32", device=device)}
    timings = interleave(cases, rounds, device)
    return 1 - timings["student"].ratio_to(timings["both"])


def bound_of(cost: StepCost, teacher_share: float) -> float:
    return cost.student_images * (1 - teacher_share) + cost.teacher_images * teacher_share


def case_of(name: str, each: Run, cost: StepCost) -> str:
    method = each.build_method()
    views = method.views + bool(method.weak_view)
    return f"{name}: views {views}, student {cost.student_images:g}, teacher {cost.teacher_images:g}"

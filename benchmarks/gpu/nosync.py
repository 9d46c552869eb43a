"""No step waits for the device: every method with every optimiser and precision, and every augmentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import product

import torch

from benchmarks.gpu.session import Session, attempt, skipped
from benchmarks.gpu.waits import waits
from benchmarks.gpu.workloads import Students, noise, run_of, teacher_of
from benchmarks.measure import row
from kdhelpers.data import Batches, BatchSpec, parse_recipe
from kdhelpers.data.batches import BLOCK_IMAGES
from kdhelpers.display.progress import Progress
from kdhelpers.methods import METHODS

HEADS = {"queue_size": 1024, "hidden_dim": 32, "dim": 16, "predictor_dim": 16}
SMALL_HEADS = {  # hyperparameters that make a method cheap and change nothing about what it launches
    "crd": {"negatives": 16, "dim": 16},
    "crd_inbatch": {"dim": 16},
    "cocord": HEADS,
    "hints": {"mode": "joint"},
    "supcon": {"dim": 16},
    "supcrd": {"dim": 16, "lam": 0.5},
    "conkd": {"dim": 16},
}
RECIPES = ("crop flip", "crop flip rotation jitter cutout", "resized_crop flip", "crop flip randaugment")
BLOCK_STEPS, STEPS = 2, 4  # the marked steps begin a block


class Marks(Progress):
    """How many waits there had been after each step."""

    def __init__(self, places):
        self._places, self.counts = places, []

    def step(self, step: int) -> None:
        self.counts.append(len(self._places()))


def nosync(session: Session) -> Iterator[dict]:
    precisions = ("fp32",) if session.small else ("bf16", "fp16")
    for recipe in RECIPES:
        if "randaugment" in recipe and session.small:
            yield skipped(f"batches, {recipe}", "on the CPU each operation takes its own images alone")
            continue
        yield attempt(f"batches, {recipe}", partial(_epoch, session, recipe))
    teachers = {name: teacher_of(session, "resnet8", name) for name in precisions}
    for method in METHODS:
        found = [
            attempt(method, partial(_method, session, method, optimizer, precision, teachers[precision]))
            for optimizer, precision in product(("sgd", "adamw", "lion"), precisions)
        ]
        yield _together(method, found)
    for method in ("lm", "crd"):
        yield _profiled(session, method)


def _row(case: str, places: list[str], steps: int) -> dict:
    note = ", ".join(f"{place} ({count})" for place, count in Counter(places).most_common(3))
    return row(case, len(places) / steps, "waits/step", None, "0", not places) | {"note": note}


def _epoch(session: Session, recipe: str) -> dict:
    """All batches after the first: what an epoch does once may wait."""
    data, spec = noise(session, STEPS), BatchSpec(parse_recipe(recipe), session.scale.batch)
    batches = Batches(data, spec, session.device, block_steps=BLOCK_STEPS).epoch(1)
    with waits(session.device) as places:
        next(batches)
        before = len(places())
        for _ in range(STEPS - 1):
            next(batches)
        found = places()[before:]
    return _row(f"batches, {recipe}", found, STEPS - 1)


def _method(session: Session, method: str, optimizer: str, precision: str, teacher) -> dict:
    entry = METHODS[method](**SMALL_HEADS.get(method, {}))
    taught = {"teacher": "resnet8"} if entry.needs_teacher else {}
    fields = {"unlabelled": "test"} if entry.uses_unlabelled else {}
    options = {"hyperparameters": SMALL_HEADS.get(method, {}), "optimizer": optimizer, "lr": 1e-3}
    batch = 4 if session.small else BLOCK_IMAGES // BLOCK_STEPS
    options |= {"batch_size": batch, "precision": precision}
    run = run_of(session, "resnet8", method=method, **options, **taught, **fields)
    data = noise(session, STEPS, batch, unlabelled=entry.uses_unlabelled)
    students = Students([run], data, session.device, teacher if taught else None)
    students.epoch()  # the first step also makes the optimiser's buffers
    with waits(session.device) as places:
        marks = Marks(places)
        students.epoch(progress=marks)
        found = places()[marks.counts[0] : marks.counts[-2]]
    students.close()
    return _row(f"{optimizer} {precision}", found, STEPS - 2)


def _together(method: str, found: list[dict]) -> dict:
    """One row for all optimisers and precisions of a method."""
    bad = [line for line in found if line["met"] is False]
    worst = max((line["value"] or 0 for line in found), default=0)
    note = "; ".join(f"{line['case']}: {line['note']}" for line in bad)
    line = row(f"steps of {method}", worst, "waits/step", None, "0", not bad)
    return line | {"note": note or f"{len(found)} optimisers and precisions"}


def _profiled(session: Session, method: str) -> dict:
    """CUDA's own calls in an epoch of few steps: synchronisations, and copies from pageable memory."""
    case = f"profile of resnet8x4 by {method}"
    if session.device.type != "cuda":
        return skipped(case, "the profile counts CUDA's calls")
    return attempt(case, partial(_profile, session, method, case))


def _profile(session: Session, method: str, case: str) -> dict:
    run = run_of(session, "resnet8x4", teacher="resnet8", method=method)
    students = Students([run], noise(session, STEPS), session.device, teacher_of(session, "resnet8"))
    students.epoch()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        students.epoch()
    students.close()
    counts = Counter({event.key: event.count for event in profile.key_averages()})
    waiting = sum(count for key, count in counts.items() if key in ("cudaStreamSynchronize", "cudaDeviceSynchronize"))
    pageable = sum(count for key, count in counts.items() if "Memcpy" in key and "Pageable" in key)
    note = f"an epoch of {STEPS} steps; copies from pageable memory: {pageable}"
    return row(case, waiting, "synchronisations") | {"note": note}

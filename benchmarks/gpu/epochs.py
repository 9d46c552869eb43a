"""Milliseconds per step of seven published pairs: the bound, our loop, our loop with graphs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch

from benchmarks import pair
from benchmarks.dispatch import Counting
from benchmarks.gpu.session import Session, attempt, attempts, skipped
from benchmarks.gpu.timing import captured, free, interleaved, repeated, window_row
from benchmarks.gpu.workloads import Students, noise, run_of, settled
from benchmarks.measure import row
from kdhelpers.device import DTYPES
from kdhelpers.models import build_model
from kdhelpers.training.teacher import Teacher

GOAL = 1.15  # of the bound, for the best of eager and graph


class Pair(NamedTuple):
    teacher: str | None
    student: str
    methods: dict[str, dict]  # name of a case -> fields of its Run
    images: int = 50_000
    batch: int = 64
    side: int = 32
    options: dict = {}  # of both networks
    student_options: dict = {}

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return math.ceil(self.images / self.batch)


LM = {"method": "lm"}
CRD = {"method": "crd", "hyperparameters": {"negatives": 16384}}
IMAGENETTE, STOCK = 9_469, {"stem": "imagenet"}
PAIRS = {
    "A resnet32x4 -> resnet8x4": Pair("resnet32x4", "resnet8x4", {"lm": LM, "crd": CRD, "lm, cached": LM}),
    "B resnet50 -> resnet18": Pair(
        "resnet50", "resnet18", {"lm": LM, "supcrd": {"method": "supcrd", "hyperparameters": {"lam": 0.5}}}, batch=128
    ),
    "C vgg16 -> vgg11": Pair("vgg16", "vgg11", {"lm": LM}),
    "C vgg16 -> vgg11, batch 128": Pair("vgg16", "vgg11", {"lm": LM}, batch=128),
    "D resnet101 -> resnet18, 224 px": Pair(
        "resnet101",
        "resnet18",
        {"conkd by lion": {"method": "conkd", "optimizer": "lion", "lr": 6e-4}},
        IMAGENETTE,
        side=224,
        options=STOCK,
    ),
    "E shake_shake 2x64d": Pair(None, "shake_shake", {"si": {}}, student_options={"base_channels": 64}),
    "F vgg13 -> vgg8": Pair("vgg13", "vgg8", {"lm": LM}),
    "G resnet56 -> resnet20": Pair("resnet56", "resnet20", {"lm": LM}),
}
SMALL_NETWORKS = {
    **dict.fromkeys(("resnet101", "resnet50"), "resnet18"),
    **dict.fromkeys(("vgg16", "vgg13", "vgg11"), "vgg8"),
    **dict.fromkeys(("resnet32x4", "resnet56", "shake_shake"), "resnet20"),
}


def epochs(session: Session) -> Iterator[dict]:
    for name, each in PAIRS.items():
        each = _small(session, each) if session.small else each
        for method, fields in each.methods.items():
            case = f"{name}, {method}"
            yield from attempts(case, _measure(session, case, each, fields, cached="cached" in method))
            free(session.device)


def _small(session: Session, each: Pair) -> Pair:
    """The pair's names stay; its networks and images are small."""
    teacher, student = (SMALL_NETWORKS.get(name, name) for name in (each.teacher, each.student))
    narrow = {"base_channels": 8} if student == "resnet18" else {}
    side = session.scale.side * (2 if each.side > 32 else 1)
    sizes = {"images": session.scale.images, "batch": session.scale.batch, "side": side}
    return each._replace(teacher=teacher, student=student, options=each.options | narrow, student_options={}, **sizes)


def _measure(session: Session, case: str, each: Pair, fields: dict, cached: bool) -> Iterator[dict]:
    device, steps = session.device, session.scale.steps
    network = settled(session, each.teacher, each.side, **each.options) if each.teacher else None
    taught = {"teacher": each.teacher} if network else {}
    options = {"model_options": each.options | each.student_options, "batch_size": each.batch}
    run = run_of(session, each.student, **(options | fields | taught))
    data = noise(session, steps, each.batch, each.side)
    teacher = Teacher(network, device, DTYPES[session.precision]) if network else None
    whole = pair.data_of(pair.images_and_labels(each.images, each.side)) if run.method == "crd" else None
    students = Students([run], data, device, teacher, cached, whole=whole)
    student = build_model(each.student, pair.CLASSES, **run.model_options)
    known = None if cached else network
    images = each.batch * run.build_method().views
    step = pair.bare(known, session.precision, images, device, student, each.side)
    cases = {"bound": repeated(captured(step, device), steps), "eager": students.timed_epoch}
    graphed = None
    if device.type == "cuda":
        graphed = Students([run], data, device, teacher, cached, graphs=True, whole=whole)
        cases["graph"] = graphed.timed_epoch
    found = interleaved(cases, device, steps)
    yield from _rows(session, case, each, found)
    yield attempt(f"{case}, operations", partial(_operations, case, students, steps))
    for opened in filter(None, (students, graphed)):
        opened.close()


def _rows(session: Session, case: str, each: Pair, found: dict) -> Iterator[dict]:
    """The goal is of the faster loop; small networks on the CPU are not judged."""
    best = min((name for name in found if name != "bound"), key=lambda name: found[name].ms)
    for name, window in found.items():
        goal = GOAL if name == best and not session.small else None
        line = window_row(f"{case}, {name}", window, found["bound"], goal)
        busy = f"device busy {100 * min(1, found['bound'].ms / window.ms):.0f} % by the bound's time"
        sizes = f"{each.teacher} -> {each.student}, batch {each.batch}, {each.side} px"
        yield line | {"steps_per_epoch": each.steps, "note": sizes if name == "bound" else busy}
    if "graph" not in found:
        yield skipped(f"{case}, graph", "CUDA graphs need an NVIDIA GPU")


def _operations(case: str, students: Students, steps: int) -> dict:
    with torch.random.fork_rng(devices=[]), Counting() as mode:
        students.epoch()
    return row(f"{case}, operations", mode.counts.total() / steps, "per step")

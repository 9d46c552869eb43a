"""How well students overlap that train at once, and what the phases of the plans take per step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.gpu.plans import METHODS, PLANS, Recipe
from benchmarks.gpu.session import Session, attempt
from benchmarks.gpu.timing import free, interleaved, window_row
from benchmarks.gpu.workloads import Students, noise, run_of, teacher_of
from benchmarks.measure import row
from kdhelpers import Run

BATCH = 64
MARGIN = 1.15  # of a predicted time: checkpoints, the ends of epochs, the first captures
SCANNED, COUNTS = ("vgg8", "resnet20", "resnet8x4"), (1, 2, 3, 4, 6)


def concurrency(session: Session, recipe: Recipe) -> Iterator[dict]:
    """The phases first: the plan is chosen by them. Then K students of one model, in graphs if there are any."""
    for case, first, methods in phases_of(recipe):
        yield attempt(case, partial(_phase, session, recipe, case, first, methods))
        free(session.device)
    for model in ("resnet8",) if session.small else SCANNED:
        alone = None
        for count in COUNTS[:2] if session.small else COUNTS:
            runs = [run_of(session, model, batch_size=BATCH) for _ in range(count)]
            window = _measure(session, runs)
            alone = alone or window
            line = window_row(f"{count} x {model}, no teacher", window)
            yield line | {"ratio": count * alone.ms / window.ms, "note": "ratio: times as many students per second"}
            free(session.device)


def phases_of(recipe: Recipe) -> list[tuple[str, str | None, tuple[str, ...]]]:
    """(name, the teacher if it trains in this phase, methods of the students) of each phase of any plan."""
    found = {}
    for plan in PLANS:
        found[phase_name(recipe.teacher, plan.first)] = (recipe.teacher, plan.first)
        if plan.second:
            found[phase_name(None, plan.second)] = (None, plan.second)
    return [(name, *parts) for name, parts in found.items()]


def phase_name(teacher: str | None, methods: Sequence[str]) -> str:
    return "phase: " + " + ".join([*([teacher] if teacher else []), *methods])


def _phase(session: Session, recipe: Recipe, case: str, teacher: str | None, methods: Sequence[str]) -> dict:
    first = [run_of(session, teacher, batch_size=BATCH)] if teacher else []
    runs = first + [_student(session, recipe, method) for method in methods]
    return window_row(case, _measure(session, runs, None if teacher else recipe.teacher))


def _student(session: Session, recipe: Recipe, method: str) -> Run:
    fields = METHODS[method]
    taught = {} if fields["method"] in ("si", "ls") else {"teacher": recipe.teacher}
    return run_of(session, recipe.student, batch_size=BATCH, **fields, **taught)


def _measure(session: Session, runs: Sequence[Run], teacher: str | None = None):
    steps = session.scale.steps
    data = noise(session, steps, BATCH)
    taught = teacher_of(session, teacher) if teacher else None
    students = Students(runs, data, session.device, taught, graphs=None)
    found = interleaved({"phase": students.timed_epoch}, session.device, steps)["phase"]
    students.close()
    return found


def predict(session: Session, recipe: Recipe, images: int) -> Iterator[dict]:
    """Seconds of each plan: its phases' milliseconds times all steps."""
    steps = MARGIN * recipe.epochs * math.ceil(images / BATCH)
    ms = {line["case"]: line["value"] for line in session.results["concurrency"]["rows"]}
    for plan in PLANS:
        names = [phase_name(recipe.teacher, plan.first), *([phase_name(None, plan.second)] if plan.second else [])]
        if all(ms.get(name) is not None for name in names):
            seconds = steps * sum(ms[name] for name in names) / 1e3
            yield row(plan.name, seconds, "s predicted") | {"note": "; ".join(names)}

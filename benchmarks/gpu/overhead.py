"""What an epoch costs besides its steps, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks import pair
from benchmarks.gpu.session import Session
from benchmarks.gpu.workloads import Students, noise, run_of
from benchmarks.measure import row
from kdhelpers import artifacts
from kdhelpers.data import parse_recipe, plan_epoch
from kdhelpers.device import synchronize, to_device
from kdhelpers.display import plots

CASES = {"resnet8x4": {}, "resnet18": {"model_options": {"stem": "cifar"}}}
HELD_OUT = 5_000


def overhead(session: Session) -> Iterator[dict]:
    yield from _input(session)
    for model, fields in CASES.items():
        yield from _ends(session, model, fields)
    history = [{"epoch": n, "loss": 2 / n, "train_top1_pct": 50.0, "val_top1_pct": 40.0} for n in range(1, 101)]
    yield _timed(session, "picture of 100 epochs", lambda: plots.png(plots.live(history, 240), 110))


def _timed(session: Session, case: str, work: Callable[[], object], rounds: int = 3) -> dict:
    """The least of some rounds: a part is short, and what else the machine does only adds."""
    seconds = []
    for _ in range(1 if session.small else rounds):
        synchronize(session.device)
        start = time.perf_counter()
        work()
        synchronize(session.device)
        seconds.append(time.perf_counter() - start)
    return row(case, 1e3 * min(seconds), "ms")


def _input(session: Session) -> Iterator[dict]:
    count, side = session.scale.images, session.scale.side
    recipe = parse_recipe("crop flip")
    yield _timed(session, f"plan of {count:,} images", lambda: plan_epoch(recipe, count, side, 1, 0, 1))
    plan = plan_epoch(recipe, count, side, 1, 0, 1)
    moved = [plan.order, *plan.draws.values()]
    yield _timed(session, "plan to the device", lambda: [to_device(values, session.device) for values in moved])


def _ends(session: Session, model: str, fields: dict) -> Iterator[dict]:
    """The end of an epoch: validation and history, the state, its file."""
    data = noise(session, 2)
    held_out = pair.images_and_labels(64 if session.small else HELD_OUT, session.scale.side)
    run = run_of(session, model, selection="best_val", val_fraction=0.1, **fields)
    students = Students([run], replace(data, val=held_out), session.device)
    (training,) = students.trainings

    def end() -> None:
        training.end_epoch(1.0)

    students.epoch()
    yield _timed(session, f"{model}, validation of {len(held_out):,} images and history", end)
    yield _timed(session, f"{model}, state", training.state)
    state, path = training.state(), session.work / "state.pt"
    yield _timed(session, f"{model}, checkpoint file", lambda: artifacts.save_tensors(path, state))
    path.unlink()
    students.close()

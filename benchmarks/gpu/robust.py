"""fp16 with loss scaling trains like bf16; an interrupted run continues as if nothing had happened."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product

from torch import Tensor

from benchmarks import pair
from benchmarks.gpu.session import Session, attempt
from benchmarks.gpu.timing import cudnn
from benchmarks.gpu.workloads import Students, noise, run_of, teacher_of
from benchmarks.measure import row
from kdhelpers import Run, artifacts, fit
from kdhelpers.data import Data
from kdhelpers.display.progress import Progress

METHODS = {"lm": {}, "crd": {"negatives": 256}, "conkd": {}}
APART = 0.05  # of the mean losses in fp16 and bf16
EPOCHS, STOP = 4, 2


def fp16(session: Session) -> Iterator[dict]:
    optimizers = ("sgd",) if session.small else ("sgd", "adamw", "lion")
    teachers = {precision: teacher_of(session, "resnet8", precision) for precision in ("fp16", "bf16")}
    for method, optimizer in product(METHODS, optimizers):
        case = f"{method} by {optimizer}, fp16 against bf16, mean loss"
        yield attempt(case, partial(_compare, session, case, method, optimizer, teachers))


def _compare(session: Session, case: str, method: str, optimizer: str, teachers: dict) -> dict:
    lr = {"sgd": 0.01, "adamw": 1e-3, "lion": 1e-4}[optimizer]
    loss, scale, skipped = {}, {}, {}
    for precision, teacher in teachers.items():
        options = {"hyperparameters": METHODS[method], "optimizer": optimizer, "lr": lr, "precision": precision}
        run = run_of(session, "resnet8", teacher="resnet8", method=method, **options)
        students = Students([run], noise(session, 4 if session.small else 60), session.device, teacher)
        (training,) = students.trainings
        first = training.scaler.get_scale()
        students.epoch()
        training.end_epoch(1.0)  # raises FloatingPointError for a loss that is not finite
        students.close()
        loss[precision] = training.history[-1]["loss"]
        scale[precision] = training.scaler.get_scale()
        skipped[precision] = math.log2(first / scale[precision])  # each halves the scale; too few steps to double it
    ratio = loss["fp16"] / loss["bf16"]
    line = row(case, ratio, "x", ratio, f"within {APART}", abs(ratio - 1) <= APART)
    return line | {"note": f"scale {scale['fp16']:g} at the end, {skipped['fp16']:g} steps skipped"}


class Stop(Progress):
    """Interrupts after an epoch."""

    def epoch(self, history: list[dict]) -> None:
        if len(history) == STOP:
            raise KeyboardInterrupt


def resume(session: Session) -> Iterator[dict]:
    data = _data(session)
    yield attempt("interrupted", partial(_interrupted, session, data))
    yield attempt("other precision", partial(_other_precision, session, data))


def _data(session: Session) -> Data:
    count = 64 if session.small else 512
    data = pair.data_of(pair.images_and_labels(count, session.scale.side))
    return replace(data, test=data.train)


def _run(seed: int, precision: str = "fp32") -> Run:
    fields = {"epochs": EPOCHS, "selection": "last", "val_fraction": 0, "batch_size": 32, "lr": 0.02}
    return Run(dataset="cifar100", model="resnet8", seed=seed, precision=precision, name="check", **fields)


def _interrupted(session: Session, data: Data) -> dict:
    with cudnn(deterministic=True):
        straight = _weights(session, data, interrupt=False)
        resumed = _weights(session, data, interrupt=True)
    far = max((straight[name].double() - resumed[name].double()).abs().max().item() for name in straight)
    case = f"{STOP} + {EPOCHS - STOP} epochs against {EPOCHS}, weights"
    exact = session.device.type == "cpu"
    note = "" if exact else "a GPU's backward passes may add in another order"
    goal = ("0", far == 0) if exact else ("", None)
    return row(case, far, "max difference", None, *goal) | {"note": note}


def _weights(session: Session, data: Data, interrupt: bool) -> dict[str, Tensor]:
    options = {"device": session.device, "force_retrain": True}
    if interrupt:
        _until_stop(_run(1), data, **options)
        options["force_retrain"] = False
    trained = fit(_run(1), data, progress=Progress(), **options)
    weights = artifacts.load_tensors(trained.weights_path)
    for path in (trained.weights_path, trained.record_path):
        path.unlink()
    return weights


def _until_stop(run: Run, data: Data, **options) -> None:
    try:
        fit(run, data, progress=Stop(), **options)
    except KeyboardInterrupt:
        return
    raise RuntimeError(f"epochs = {EPOCHS}: the training ended before it was interrupted")


def _other_precision(session: Session, data: Data) -> dict:
    """A run of precision auto whose checkpoint is of fp16, as of another GPU, trains to its end."""
    run = _run(2, "auto")
    _until_stop(run, data, device=session.device, force_retrain=True)
    (path,) = artifacts.folder("checkpoints").glob("*.pt")
    artifacts.save_tensors(path, artifacts.load_tensors(path) | {"precision": "fp16"})
    trained = fit(run, data, device=session.device, progress=Progress())
    epochs = len(trained.history)
    return row("an fp16 checkpoint, resumed", epochs, "epochs", None, f"{EPOCHS}", epochs == EPOCHS)

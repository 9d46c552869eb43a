"""Trainings side by side: on the same batches, behind one forward of the teacher that they share."""

import contextlib
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from kdhelpers.data import Batch
from kdhelpers.display.progress import VALIDATION, Progress
from kdhelpers.methods import METHODS
from kdhelpers.models import Outputs
from kdhelpers.training.batching import training_batches
from kdhelpers.training.job import Job
from kdhelpers.training.student import Training
from kdhelpers.training.teacher import Teacher
from kdhelpers.training.teacher_cache import CachedTeacher, cached_teacher


class SharedTeacher:
    """A teacher asked by several students: what it says of a view, up to one depth, is computed once, until it is to
    `begin_batch` to another batch.

    `forwards` counts the times that it was really asked.
    """

    def __init__(self, teacher: Teacher | CachedTeacher):
        self.teacher, self.said, self.forwards = teacher, [], 0

    def __call__(self, view: Tensor, stop_at: str | None = None) -> Outputs:
        for known, end, outputs in self.said:
            if known is view and end == stop_at:
                return outputs
        self.forwards += 1
        self.said.append((view, stop_at, self.teacher(view, stop_at=stop_at)))
        return self.said[-1][-1]

    def begin_batch(self, batch: Batch | None) -> None:
        self.said.clear()
        if isinstance(self.teacher, CachedTeacher):
            self.teacher.begin_batch(batch)

    def save(self) -> None:
        if isinstance(self.teacher, CachedTeacher):
            self.teacher.table.save()


def train(
    jobs: Sequence[Job],
    progress: Progress,
    force_retrain: bool,
    tensorboard: bool,
    compiled: bool,
    stored: bool = False,
) -> None:
    """Train the jobs to their end, each from where it stands; those that are behind catch up first. With `stored`
    their teacher's outputs are looked up where they can be.

    A loss that is not finite ends its own job alone, and is raised once the others are done; any other failure ends
    all. Each job's record says how it ended.
    """
    try:
        with contextlib.ExitStack() as held:
            shared = _begin(jobs, force_retrain, compiled, held if stored else None)
            _run_epochs(jobs, shared, progress, tensorboard)
        for job in _running(jobs):
            with job.isolate_failure():
                job.finish()
    except BaseException as error:
        for job in _running(jobs):
            job.fail(error)
        raise
    finally:
        progress.end(_common_record(jobs))
    for job in jobs:
        if job.error:
            raise job.error


def _running(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.record["status"] == "running"]


def _begin(
    jobs: Sequence[Job], force_retrain: bool, compiled: bool, held: contextlib.ExitStack | None
) -> SharedTeacher | None:
    """Make the trainings: with the same batches, of all that any of them asks for, and one teacher between them; its
    table of outputs, if there is to be one, is held on `held`."""
    first, methods = jobs[0], [METHODS[job.run.method](**job.run.hyperparameters) for job in jobs]
    batches = training_batches(first.run, first.data, methods, first.device)
    teacher = next((job.teacher for job in jobs if job.teacher), None)
    if teacher and held:
        read = {part for method in methods if method.needs_teacher for part in method.reads}
        teacher = held.enter_context(cached_teacher(teacher, first.data, batches, read))
    shared = SharedTeacher(teacher) if teacher and (len(jobs) > 1 or teacher is not first.teacher) else None
    for job in jobs:
        job.begin(shared if shared and job.teacher else job.teacher, batches, force_retrain, compiled)
        if shared:
            shared.begin_batch(None)  # not to the images that shapes were taken from
    return shared


def _run_epochs(jobs: Sequence[Job], shared: SharedTeacher | None, progress: Progress, tensorboard: bool) -> None:
    first, done = jobs[0].training, min(job.training.epochs_done for job in jobs)
    progress.begin(_common_name(jobs), first.run.epochs, len(first.batches), done)
    for epoch in range(done, first.run.epochs):
        behind = [job for job in _running(jobs) if job.training.epochs_done == epoch]
        if not behind:
            continue  # those at this epoch failed; others may stand further on
        seconds = train_epoch([job.training for job in behind], progress, shared)
        if shared:
            shared.save()
        for job in behind:
            with job.isolate_failure():
                job.training.end_epoch(seconds / len(behind), len(behind))
                job.checkpoint(tensorboard)
        if history := _common_history(_running(jobs)):
            progress.epoch(history)


def train_epoch(trainings: Sequence[Training], progress: Progress, shared: SharedTeacher | None = None) -> float:
    """All steps of one more epoch of each training, which all stand at one epoch; how many seconds they took."""
    start, batches = time.perf_counter(), trainings[0].batches
    for training in trainings:
        training.begin_epoch()
    for number, batch in enumerate(batches.epoch(trainings[0].epochs_done + 1), 1):
        if shared:
            shared.begin_batch(batch)
        for training in trainings:
            training.step(batch)
        progress.step(number)
    if shared:
        shared.begin_batch(None)  # its images are of no more use
    if trainings[0].device.type == "cuda":
        torch.cuda.synchronize(trainings[0].device)
    return time.perf_counter() - start


def _common_name(jobs: Sequence[Job]) -> str:
    return jobs[0].name if len(jobs) == 1 else f"{len(jobs)} students"


def _common_history(jobs: Sequence[Job]) -> list[dict]:
    """The history of a single job; of several, the loss and the validation accuracy of each by what tells their names
    apart."""
    if len(jobs) <= 1:
        return [row for job in jobs for row in job.training.history]
    names = dict(zip(jobs, _distinct([job.name for job in jobs]), strict=True))
    rows = zip(*(job.training.history for job in jobs), strict=False)  # one that was ahead has more
    return [
        {"epoch": row[0]["epoch"]}
        | {name: each["loss"] for name, each in zip(names.values(), row, strict=True)}
        | {f"{name} {VALIDATION}": each.get(VALIDATION) for name, each in zip(names.values(), row, strict=True)}
        for row in rows
    ]


def _distinct(names: list[str]) -> list[str]:
    """The names without the words that all begin or end with: student_tau_0.05_resnet18 -> tau_0.05."""
    words = [name.split("_") for name in names]
    while all(len(each) > 1 for each in words) and len({each[0] for each in words}) == 1:
        words = [each[1:] for each in words]
    while all(len(each) > 1 for each in words) and len({each[-1] for each in words}) == 1:
        words = [each[:-1] for each in words]
    return ["_".join(each) for each in words]


def _common_record(jobs: Sequence[Job]) -> dict:
    """What is told at the end: the record of a single job; of several, how long they took and what failed."""
    if len(jobs) == 1:
        return jobs[0].record
    errors = [f"{job.name}: {job.record['error']}" for job in jobs if job.record["error"]]
    seconds = sum(row["seconds"] for job in jobs if job.training for row in job.training.history)
    return {
        "name": _common_name(jobs),
        "status": "failed" if errors else "finished",
        "error": "; ".join(errors) or None,
        "history": _common_history([job for job in jobs if job.training and not job.error]),
        "metrics": {"train_seconds": seconds},
        "notes": list(dict.fromkeys(note for job in jobs for note in job.record["notes"])),
    }

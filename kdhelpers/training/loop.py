"""The training loop: students in lockstep on the same batches, sharing the forward passes of one teacher."""

import contextlib
import time
from collections.abc import Sequence
from itertools import islice

import torch.distributed as dist

from kdhelpers.artifacts import rehearsed_steps
from kdhelpers.data import Batches, BatchSpec, parse_recipe
from kdhelpers.device import synchronize
from kdhelpers.display.progress import VALIDATION, Progress
from kdhelpers.training.graphs import UsualSteps, steps_of
from kdhelpers.training.group import lost_process_named
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.job import Job
from kdhelpers.training.shared_teacher import SharedTeacher, share_teacher
from kdhelpers.training.student import Training


def train_epochs(
    jobs: Sequence[Job], teacher: SharedTeacher | None, steps: UsualSteps, progress: Progress, tensorboard: bool
) -> None:
    """Train every job to its last epoch. A job that is ahead waits until the others have caught up."""
    epochs = max(job.training.last_epoch for job in jobs)
    first_epoch = min(job.training.epoch for job in jobs)
    progress.begin(_common_name(jobs), epochs, len(jobs[0].training.batches), first_epoch - 1)
    for epoch in range(first_epoch, epochs + 1):
        in_step = [job for job in _running(jobs) if job.training.epoch == epoch]
        if not in_step:
            continue
        seconds = train_epoch([job.training for job in in_step], progress, steps)
        if teacher:
            teacher.save()
        for job in in_step:
            with job.isolate_failure():
                job.training.end_epoch(seconds / len(in_step), len(in_step))
                job.save_checkpoint(tensorboard)
        if history := _common_history(_running(jobs)):
            progress.epoch(history)


def train_epoch(trainings: Sequence[Training], progress: Progress, steps: UsualSteps | None = None) -> float:
    """One epoch of all trainings, which are at the same epoch. Returns the seconds that the steps took.

    A rehearsal trains a few steps, and returns the seconds that all steps would take by the time of the last one.
    """
    start, epoch, steps = time.perf_counter(), trainings[0].epoch, steps or UsualSteps()
    batches, device = trainings[0].batches, trainings[0].device
    few = rehearsed_steps(device.type, batches)
    for training in trainings:
        training.begin_epoch()
    for number, batch in enumerate(islice(batches.epoch(epoch), few), 1):
        if number == few:
            synchronize(device)
            start = time.perf_counter()
        steps(trainings, batch)
        progress.step(number)
    steps.end_epoch()
    synchronize(device)
    return (time.perf_counter() - start) * (len(batches) if few else 1)


def train(
    jobs: Sequence[Job],
    progress: Progress,
    *,
    force_retrain: bool = False,
    tensorboard: bool = False,
    compiled: bool = False,
    cache_teacher: bool = False,
    graphs: bool | None = None,
) -> None:
    """Train the jobs to their end, each from its checkpoint, and store them.

    A loss that is not finite ends its own job alone, and is raised when the others are done; any other failure ends
    all. The record of each job holds how it ended.
    """
    try:
        with lost_process_named():
            with contextlib.ExitStack() as stack:
                batches = batches_of([job.inputs for job in jobs])
                teacher = stack.enter_context(share_teacher([job.inputs for job in jobs], batches, cache_teacher))
                for job in jobs:
                    job.begin(batches, teacher, force_retrain, compiled)
                steps = steps_of(batches.device, teacher, graphs, compiled)
                train_epochs(jobs, teacher, steps, progress, tensorboard)
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


def batches_of(students: Sequence[Inputs]) -> Batches:
    """The batches of students in lockstep, with everything that their methods need: this process's share."""
    run, methods = students[0].run, [inputs.run.build_method() for inputs in students]
    uses_unlabelled = any(method.uses_unlabelled for method in methods)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    spec = BatchSpec(
        parse_recipe(run.augmentation),
        run.batch_size,
        views=max(method.views for method in methods),
        seed=run.seed,
        weak_view=max(method.weak_view for method in methods),  # a sweep has one kind at most
        weak_crop=max((method.views for method in methods if method.weak_view == "own_crop"), default=None),
        unlabelled_batch_size=(run.unlabelled_batch_size or run.batch_size) if uses_unlabelled else 0,
        rank=rank,
        world=world,
    )
    return Batches(students[0].data, spec, students[0].device)


def _running(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.record["status"] == "running"]


def _common_name(jobs: Sequence[Job]) -> str:
    return jobs[0].name if len(jobs) == 1 else f"{len(jobs)} students"


def _common_history(jobs: Sequence[Job]) -> list[dict]:
    """The history of a single job; of several, loss and validation accuracy of each, by what distinguishes its name."""
    if len(jobs) <= 1:
        return [row for job in jobs for row in job.training.history]
    names = _distinct([job.name for job in jobs])
    epochs = zip(*(job.training.history for job in jobs), strict=False)  # a job that was ahead has more epochs
    return [
        {"epoch": rows[0]["epoch"]}
        | {name: row["loss"] for name, row in zip(names, rows, strict=True)}
        | {f"{name} {VALIDATION}": row.get(VALIDATION) for name, row in zip(names, rows, strict=True)}
        for rows in epochs
    ]


def _distinct(names: list[str]) -> list[str]:
    """The names without the words that all begin or end with: student_tau_0.05_resnet18 -> tau_0.05."""
    words = [name.split("_") for name in names]
    for end in (0, -1):
        while all(len(parts) > 1 for parts in words) and len({parts[end] for parts in words}) == 1:
            for parts in words:
                del parts[end]
    return ["_".join(parts) for parts in words]


def _common_record(jobs: Sequence[Job]) -> dict:
    """The record of a single job; of several, how long they took, what failed, and all notes."""
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

"""`fit`: a `Run` in, trained weights and a result record out; finished runs are loaded, interrupted ones go on."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from kdhelpers import artifacts
from kdhelpers.data import Data, load_data
from kdhelpers.device import DTYPES, pick_device, resolve_precision
from kdhelpers.display.progress import Progress, TerminalProgress
from kdhelpers.methods import METHODS
from kdhelpers.training import loop as lockstep
from kdhelpers.training import record
from kdhelpers.training.finished import add_alias, find_finished_on_all_ranks, run_lock
from kdhelpers.training.job import Job
from kdhelpers.training.run import Run
from kdhelpers.training.teacher import Teacher, load_teacher
from kdhelpers.weights.load import Weights, find_teacher, load_model, teacher_name

# What the students of a sweep must have in common, besides their teacher.
SHARED = (
    "dataset",
    "image_size",
    "val_fraction",
    "split_seed",
    "unlabelled",
    "unlabelled_batch_size",
    "augmentation",
    "batch_size",
    "epochs",
    "seed",
    "precision",
)


@dataclass(frozen=True)
class Trained:
    """What `fit` gives back. `cached`: it was finished before and loaded now."""

    model: nn.Module
    run: Run
    record: dict
    cached: bool

    @property
    def name(self) -> str:
        """The artifacts' name; give it as `teacher=` to the next run."""
        return self.record["name"]

    @property
    def history(self) -> list[dict]:
        return self.record["history"]

    @property
    def metrics(self) -> dict[str, float]:
        return self.record["metrics"]

    def load_teacher(self) -> nn.Module:
        """The run's teacher as a plain network, beside the student; ValueError for a run without one."""
        if not self.run.teacher:
            raise ValueError(f"{self.name}: method {self.run.method} has no teacher")
        device = next(self.model.parameters()).device
        return load_model(find_teacher(self.run.teacher, self.run.dataset), device=str(device))

    @property
    def weights_path(self) -> Path:
        return artifacts.weights_path(self.name)

    @property
    def record_path(self) -> Path:
        return artifacts.record_path(self.name)


def fit(
    run: Run,
    data: Data | None = None,
    *,
    force_retrain: bool = False,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    tensorboard: bool = False,
    compile: bool = False,
    cache_teacher: bool = False,
) -> Trained:
    """Train what `run` describes, or load it if it is finished, or go on from its last epoch if it was interrupted.

    The same run means the same `Run`, the same training images and the same teacher weights, whatever the file's name.
    data: the result of `load_data`, to save loading it again. tensorboard: scalars per epoch into runs/<name>. compile:
    torch.compile of student and method (slow to start; pays on long GPU runs). cache_teacher: what the teacher says of
    a view is kept in pth_models/outputs and looked up by every run that shares teacher, images, augmentation and
    precision; for crop and flip, where an image has 162 views (see `outputs`).

    Writes pth_models/<name>.pth and its .json, and json_results/<name>.json; the test split is looked at once, at the
    end, with the weights of the selected epoch. Raises FileNotFoundError for an untrained teacher and ValueError for
    weights, data or classes that do not fit, before any training; FloatingPointError for a loss that is not finite.
    """
    if compile and cache_teacher:
        raise ValueError("compile = True: a table is looked up on the host; leave compile or cache_teacher out")
    device, progress = pick_device(device), progress or TerminalProgress()
    return _fit([run], data, device, progress, force_retrain, tensorboard, compile, cache_teacher)[0]


def fit_sweep(
    runs: Sequence[Run],
    data: Data | None = None,
    *,
    force_retrain: bool = False,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    tensorboard: bool = False,
    cache_teacher: bool = False,
) -> list[Trained]:
    """`fit` for several students of one teacher in lockstep: they see the same batches, and one forward of the teacher
    serves them all.

    The runs may differ in model, method, hyperparameters, optimiser and schedule. Each ends as it would alone, on the
    CPU with the same bits, and is stored, found again and resumed on its own; runs that are alike are trained once. A
    run whose loss is not finite does not hold up the others: it is raised when they are done. Seconds in the records
    are shares of the common time. cache_teacher: as in `fit`. Raises ValueError that names the first field in which
    runs must agree and do not (those of SHARED, the teacher), and under torchrun; and as `fit`.
    """
    runs = list(runs)
    _check_shared(runs)
    device, progress = pick_device(device), progress or TerminalProgress()
    return _fit(runs, data, device, progress, force_retrain, tensorboard, False, cache_teacher)


def _check_shared(runs: list[Run]) -> None:
    if not runs:
        raise ValueError("runs: none given; a sweep needs one or more")
    if dist.is_initialized() and len(runs) > 1:
        raise ValueError("runs: several students train in lockstep in one process; under torchrun fit them one by one")
    for field in SHARED:
        values = list(dict.fromkeys(getattr(run, field) for run in runs))
        if len(values) > 1:
            raise ValueError(f"runs: differ in {field} ({', '.join(map(str, values))}); a sweep shares its batches")
    if len(teachers := {run.teacher for run in runs if run.teacher}) > 1:
        raise ValueError(f"runs: have several teachers ({', '.join(sorted(teachers))}); a sweep shares its teacher")
    if len({METHODS[run.method](**run.hyperparameters).weak_view for run in runs} - {""}) > 1:
        raise ValueError("runs: differ in consistent (True, False); a sweep shares the teacher's views")


@torch.random.fork_rng(devices=[])  # whatever draws besides the trainings: networks built to be loaded, a DataLoader
def _fit(
    runs: list[Run],
    data: Data | None,
    device: torch.device,
    progress: Progress,
    force_retrain: bool,
    tensorboard: bool,
    compiled: bool,
    cache_teacher: bool,
) -> list[Trained]:
    first, precision = runs[0], resolve_precision(runs[0].precision, device)
    spelled = next((run.teacher for run in runs if run.teacher), None)
    name = teacher_name(spelled, first.dataset) if spelled else None  # before any download
    starts = [find_teacher(run.start_from, run.dataset) if run.start_from else None for run in runs]
    teacher = load_teacher(name, device, DTYPES[precision]) if name else None
    data = data or load_data(
        first.dataset, first.image_size, first.val_fraction, first.split_seed, unlabelled=first.unlabelled
    )
    for run in runs:
        _check_data(data, run)
    _check_teacher(teacher, spelled, data)
    teachers = [teacher if run.teacher else None for run in runs]
    identities = [run_identity(*facts) for facts in zip(runs, repeat(data), teachers, starts)]
    with contextlib.ExitStack() as locks:
        for identity in sorted(set(identities)):  # in one order everywhere, so that no two wait for each other
            locks.enter_context(run_lock(identity))
        stored = [
            None if force_retrain else find_finished_on_all_ranks(record.described(run, data, its), device)
            for run, its in zip(runs, teachers, strict=True)
        ]
        for _, found in filter(None, stored):
            progress.end(found)
        new = {}
        for run, its, identity, found in zip(runs, teachers, identities, stored, strict=True):
            if not found:  # of runs that are alike the first names the training
                new.setdefault(identity, (run, data, its, device, precision, identity))
        jobs = {identity: Job(*facts) for identity, facts in new.items()}
        try:
            if jobs:
                lockstep.train(list(jobs.values()), progress, force_retrain, tensorboard, compiled, cache_teacher)
        finally:  # a run that failed costs the others no name
            facts = [found[1] if found else jobs[name].record for name, found in zip(identities, stored, strict=True)]
            for run, known in zip(runs, facts, strict=True):
                add_alias(run, known)
        return [
            Trained((found[0] if found else jobs[name].training.network).eval(), run, known, cached=found is not None)
            for run, name, known, found in zip(runs, identities, facts, stored, strict=True)
        ]


def run_identity(run: Run, data: Data, teacher: Teacher | None, start: Weights | None = None) -> str:
    """What must agree for two trainings to be one: the Run, the images, the weights of the teacher and of the start."""
    weights = [teacher.sha256 if teacher else "", *([start.sha256] if start else [])]
    return hashlib.sha256(" ".join([run.id, data.content_hash, *weights]).encode()).hexdigest()


def _check_data(data: Data, run: Run) -> None:
    source = data.unlabelled.source if data.unlabelled is not None else None
    if (data.name, source) != (run.dataset, run.unlabelled) or run.image_size not in (None, data.image_size):
        raise ValueError(
            f"data: {data.name} at {data.image_size} px was given, the run is of dataset = {run.dataset}, image_size = "
            f"{run.image_size}, unlabelled = {run.unlabelled} (given: {source}); load what the run names, or none"
        )
    if run.selection == "best_val" and len(data.val) == 0:
        raise ValueError(
            f"val_fraction = {run.val_fraction}: leaves no image of {data.name} held out, which selection "
            "best_val needs; raise it or take selection last"
        )


def _check_teacher(teacher: Teacher | None, spelled: str | None, data: Data) -> None:
    described = teacher.described if teacher else {}
    wrong = ""
    if described.get("num_classes", data.num_classes) != data.num_classes:
        wrong = f"it knows {described['num_classes']} classes, {data.name} has {data.num_classes}"
    elif described.get("class_names", data.class_names) != list(data.class_names):
        wrong = f"its classes ({', '.join(described['class_names'][:3])}, ...) are not those of {data.name}"
    if wrong:
        raise ValueError(f"teacher = {spelled}: {wrong}; train a teacher on this data set (notebook 01_teacher)")

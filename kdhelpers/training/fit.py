"""`fit`: a `Run` in, trained weights and a result record out. Finished runs are loaded, interrupted ones resumed."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from kdhelpers import artifacts
from kdhelpers.data import Data
from kdhelpers.device import full_fp32, pick_device
from kdhelpers.display.progress import Progress, TerminalProgress
from kdhelpers.training import loop, names
from kdhelpers.training.checkpoint import delete_checkpoint
from kdhelpers.training.finished import add_alias, adopt_earlier_files, find_finished_on_all_ranks, is_writer, run_lock
from kdhelpers.training.inputs import Inputs, resolve
from kdhelpers.training.job import Job
from kdhelpers.training.run import Run
from kdhelpers.weights.load import find_teacher, load_model

# Fields in which the students of a sweep must agree, besides their teacher.
SHARED = (
    "dataset image_size val_fraction split_seed unlabelled unlabelled_batch_size augmentation batch_size epochs seed "
    "precision"
).split()


@dataclass(frozen=True)
class Trained:
    """The result of `fit`. `cached`: it was finished before and is loaded now."""

    model: nn.Module
    run: Run
    record: dict
    cached: bool

    @property
    def name(self) -> str:
        """Name of the artifacts; give it as `teacher=` to the next run."""
        return self.record["name"]

    @property
    def history(self) -> list[dict]:
        return self.record["history"]

    @property
    def metrics(self) -> dict[str, float]:
        return self.record["metrics"]

    def load_teacher(self) -> nn.Module:
        """The run's teacher as a plain network, on the device of the student; ValueError for a run without one."""
        if not self.run.teacher:
            raise ValueError(f"{self.name}: method {self.run.method} has no teacher")
        device = next(self.model.parameters()).device
        return load_model(find_teacher(self.run.teacher, self.run.dataset), device=str(device))

    def curves_name(self, named: bool = False) -> str:
        """Name of the picture of the curves; `named`: the user chose the run's name (see `names.curves_name`)."""
        teacher = (self.record["teacher"] or {}).get("model")
        return names.curves_name(self.run, self.name, teacher, named)

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
    graphs: bool | None = None,
) -> Trained:
    """Train the run; load it if it is finished; resume it from its checkpoint if it was interrupted.

    Two runs are the same if settings, images and weights of the teacher are equal; the names of files do not matter.
    data: the result of `load_data`, to save loading it again. tensorboard: scalars per epoch into runs/<name>. compile:
    torch.compile of student and method (slow to start; pays on long GPU runs). cache_teacher: the teacher's outputs are
    kept in pth_models/outputs and looked up by every run that shares teacher, images, augmentation and precision; for
    crop and flip, which give an image 162 views (see `teacher_cache`). graphs: a GPU runs each step as a CUDA graph;
    None means that a measurement of the first steps decides.

    Writes pth_models/<name>.pth and its .json, also .head if a head predicts, and json_results/<name>.json; the test
    split is evaluated once, at the end, with the weights of the selected epoch. Raises FileNotFoundError for an
    untrained teacher and ValueError for weights, data or classes that do not fit, before any training;
    FloatingPointError for a loss that is not finite.
    """
    if compile and cache_teacher:
        raise ValueError("compile = True: excludes cache_teacher, whose lookups run on the host; leave one of them out")
    options = {"tensorboard": tensorboard, "compiled": compile, "cache_teacher": cache_teacher, "graphs": graphs}
    return _fit([run], data, device, progress, force_retrain=force_retrain, **options)[0]


def fit_sweep(
    runs: Sequence[Run],
    data: Data | None = None,
    *,
    force_retrain: bool = False,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    tensorboard: bool = False,
    cache_teacher: bool = False,
    graphs: bool | None = None,
) -> list[Trained]:
    """`fit` for several students of one teacher in lockstep: same batches, and one forward pass of the teacher for all.

    The runs may differ in model, method, hyperparameters, optimiser and schedule. Each ends as it would alone, on the
    CPU with the same bits, and is stored, found and resumed on its own; equal runs are trained once. If the loss of a
    run is not finite, the others are trained to their end before it raises. Seconds in the records are shares of the
    common time. Raises ValueError that names the first field in which runs must agree and do not (`SHARED`, the
    teacher), and under torchrun; and as `fit`.
    """
    runs = list(runs)
    _check_shared(runs)
    options = {"tensorboard": tensorboard, "cache_teacher": cache_teacher, "graphs": graphs}
    return _fit(runs, data, device, progress, force_retrain=force_retrain, **options)


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
    if len(crops := {run.build_method().weak_view for run in runs} - {""}) > 1:
        raise ValueError(f"runs: differ in the teacher's weak view ({', '.join(sorted(crops))}); a sweep shares it")


@torch.random.fork_rng(devices=[])  # networks that are built to be loaded draw random numbers, a DataLoader does too
def _fit(
    runs: list[Run],
    data: Data | None,
    device: str | torch.device | None,
    progress: Progress | None,
    *,
    force_retrain: bool,
    **options: bool | None,
) -> list[Trained]:
    device = pick_device(device)
    if options["graphs"] and device.type != "cuda":
        raise ValueError(f"graphs = True: CUDA graphs need a CUDA GPU, the device is {device}; leave graphs out")
    progress = progress or TerminalProgress()
    students = resolve(runs, data, device, resume=not force_retrain)
    unique: dict[str, Inputs] = {}
    for inputs in students:
        unique.setdefault(inputs.identity, inputs)  # of equal runs the first names the training
    with contextlib.ExitStack() as stack:
        stack.enter_context(full_fp32())
        for identity in sorted(unique):  # in one order everywhere, so that no two processes wait for each other
            stack.enter_context(run_lock(identity))
        outcomes = _load_finished(unique, progress, force_retrain)
        jobs = {identity: Job(inputs) for identity, inputs in unique.items() if identity not in outcomes}
        try:
            if jobs:
                loop.train(list(jobs.values()), progress, force_retrain=force_retrain, **options)
        finally:  # a failed run costs the others no alias
            outcomes |= {identity: (job.training and job.training.model, job.record) for identity, job in jobs.items()}
            for inputs in students:
                add_alias(inputs.run, outcomes[inputs.identity][1])
    return [
        Trained(
            outcomes[inputs.identity][0].eval(), inputs.run, outcomes[inputs.identity][1], inputs.identity not in jobs
        )
        for inputs in students
    ]


def _load_finished(unique: dict[str, Inputs], progress: Progress, force_retrain: bool) -> dict[str, tuple]:
    """Identity -> (network, record) of each training that is finished."""
    outcomes = {}
    for identity, inputs in unique.items():
        adopt_earlier_files(inputs)
        if not force_retrain and (outcome := find_finished_on_all_ranks(inputs)):
            outcomes[identity] = outcome
            if is_writer():  # a kill may have left it
                delete_checkpoint(artifacts.checkpoint_path(identity))
            progress.end(outcome[1])
    return outcomes

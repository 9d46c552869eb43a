"""`fit`: a `Run` in, trained weights and a result record out; finished runs are loaded, interrupted ones go on.

torchrun --nproc_per_node=N -m kdhelpers.train RUN.json      the same on N devices, same global batch
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from kdhelpers import artifacts, record
from kdhelpers.data import Data, load_data
from kdhelpers.device import DTYPES, pick_device, resolve_precision
from kdhelpers.evaluation import evaluate, infer
from kdhelpers.loop import Training, weights_of
from kdhelpers.models import count_macs, count_parameters
from kdhelpers.probe import fit_probe
from kdhelpers.progress import Progress, TerminalProgress
from kdhelpers.settings import Run
from kdhelpers.teachers import Teacher, find_weights, load_model, load_teacher, sidecar, teacher_name


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
        return load_model(teacher_name(self.run.teacher, self.run.dataset), device=str(device))

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
) -> Trained:
    """Train what `run` describes, or load it if it is finished, or go on from its last epoch if it was interrupted.

    The same run means the same `Run`, the same training images and the same teacher weights, whatever the file's name.
    data: the result of `load_data`, to save loading it again. tensorboard: scalars per epoch into runs/<name>. compile:
    torch.compile of student and method (slow to start; pays on long GPU runs).

    Writes pth_models/<name>.pth and its .json, and json_results/<name>.json; the test split is looked at once, at the
    end, with the weights of the selected epoch. Raises FileNotFoundError for an untrained teacher and ValueError for
    weights, data or classes that do not fit, before any training; FloatingPointError for a loss that is not finite.
    """
    options = {"force_retrain": force_retrain, "device": device, "tensorboard": tensorboard, "compile": compile}
    return fit_sweep([run], data, progress=progress, **options)[0]


def fit_sweep(
    runs: Sequence[Run],
    data: Data | None = None,
    *,
    force_retrain: bool = False,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    tensorboard: bool = False,
    compile: bool = False,
) -> list[Trained]:
    """`fit` for several students that see the same batches, in lockstep behind one forward of their teacher a batch.

    The runs may differ in model, method, hyperparameters, optimiser and schedule; each ends as it would alone, on the
    CPU to the same bits, and is cached and resumed on its own. Raises ValueError that names the first field in which
    they must agree and do not (data, teacher, views' augmentation, seed, batch size, epochs, precision), and as `fit`.
    """
    _check_shared(runs)
    device = pick_device(device)
    run, precision = runs[0], resolve_precision(runs[0].precision, device)
    names = {each.teacher for each in runs if each.teacher}
    name = teacher_name(*names, run.dataset) if names else None  # before any download
    starts = [find_weights(teacher_name(each.start_from, run.dataset)) if each.start_from else None for each in runs]
    teacher = load_teacher(name, device, DTYPES[precision]) if name else None
    data = data or load_data(run.dataset, run.image_size, run.val_fraction, run.split_seed)
    for each in runs:
        _check_data(data, each)
    _check_teacher(teacher, data, run)
    progress = progress or TerminalProgress()
    taught = [teacher if each.teacher else None for each in runs]
    identities = [run_identity(*facts) for facts in zip(runs, repeat(data), taught, starts)]
    with contextlib.ExitStack() as locks:
        for identity in sorted(set(identities)):  # one order for all processes: none waits for another's in a circle
            locks.enter_context(_sole_trainer(identity))
        sought = [record.training_facts(record.described(each, data, its)) for each, its in zip(runs, taught, strict=True)]
        ended = [None if force_retrain else _finished(*pair, device) for pair in zip(runs, sought, strict=True)]
        jobs = {
            place: Job(each, data, taught[place], (device, precision), identities[place])
            for place, each in enumerate(runs)
            if ended[place] is None
        }
        for found in filter(None, ended):
            progress.end(found.record)
        new = dict(zip(jobs, train_jobs(list(jobs.values()), progress, force_retrain, tensorboard, compile), strict=True))
    return [new.get(place) or found for place, found in enumerate(ended)]


def run_identity(run: Run, data: Data, teacher: Teacher | None, start: Path | None = None) -> str:
    """What must agree for two trainings to be one: the Run, the images, the weights of the teacher and of the start."""
    weights = [teacher.sha256 if teacher else "", *([artifacts.sha256(start)] if start else [])]
    return hashlib.sha256(" ".join([run.id, data.content_hash, *weights]).encode()).hexdigest()


def _check_data(data: Data, run: Run) -> None:
    if data.name != run.dataset or run.image_size not in (None, data.image_size):
        raise ValueError(
            f"data: {data.name} at {data.image_size} px was given, the run is of dataset = {run.dataset}, "
            f"image_size = {run.image_size}; load what the run names, or leave data out"
        )
    if run.selection == "best_val" and len(data.val) == 0:
        raise ValueError(
            f"val_fraction = {run.val_fraction}: leaves no image of {data.name} held out, which selection "
            "best_val needs; raise it or take selection last"
        )


def _check_teacher(teacher: Teacher | None, data: Data, run: Run) -> None:
    described = teacher.described if teacher else {}
    wrong = ""
    if described.get("num_classes", data.num_classes) != data.num_classes:
        wrong = f"it knows {described['num_classes']} classes, {data.name} has {data.num_classes}"
    elif described.get("class_names", data.class_names) != list(data.class_names):
        wrong = f"its classes ({', '.join(described['class_names'][:3])}, ...) are not those of {data.name}"
    if wrong:
        raise ValueError(f"teacher = {run.teacher}: {wrong}; train a teacher on this data set (notebook 01_teacher)")


@contextlib.contextmanager
def _sole_trainer(identity: str) -> Iterator[None]:
    """One process trains a run at a time (under torchrun: one group, held by rank 0); others wait, and say so."""
    if dist.is_initialized() and dist.get_rank() > 0:
        yield
        return
    path = artifacts.run_lock_path(identity)
    try:
        with artifacts.lock(path, wait=False):
            pass
    except BlockingIOError:
        print("this run is being trained by another process; waiting for it to end", file=sys.stderr)
    with artifacts.lock(path):
        yield


def _find_finished(run: Run, sought: dict, device: torch.device) -> Trained | None:
    """The finished training of those facts, if its record, sidecar and weights agree."""
    for stored in artifacts.records():
        if stored["status"] == "finished" and record.training_facts(stored) == sought:
            path = artifacts.weights_path(stored["name"])
            if not path.is_file():  # a record that came with the checkout, weights do not
                continue
            try:
                described = sidecar(path) or {}
                wanted = stored["identity"], stored["weights"]["sha256"]
                if (described.get("identity"), described.get("sha256")) != wanted:
                    raise ValueError(f"the weights of {stored['name']} are not those of its record")
                trained = Trained(load_model(stored["name"], device=str(device)), run, stored, cached=True)
            except (OSError, ValueError) as error:
                print(f"training again: {error}", file=sys.stderr)
                continue
            if run.name and not stored["name"].startswith(run.artifact_name):
                print(f"this run is stored as {stored['name']}; it is not copied to {run.name}", file=sys.stderr)
            return trained
    return None


def _agreed(value: bool) -> bool:
    """Rank 0's value on every rank: its files may change between two ranks' looks."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def main(path: str) -> None:
    """Train the Run in a JSON file under torchrun: every process takes its share of each batch."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    trained = fit(Run(**artifacts.load_json(path)))
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(f"{trained.name}: test top-1 {trained.metrics['test_top1_pct']:.2f} %")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])

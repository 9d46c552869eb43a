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
    device = pick_device(device)
    precision = resolve_precision(run.precision, device)
    name = teacher_name(run.teacher, run.dataset) if run.teacher else None  # before any download
    start = find_weights(teacher_name(run.start_from, run.dataset)) if run.start_from else None
    teacher = load_teacher(name, device, DTYPES[precision]) if name else None
    data = data or load_data(run.dataset, run.image_size, run.val_fraction, run.split_seed)
    _check_data(data, run)
    _check_teacher(teacher, data, run)
    identity = run_identity(run, data, teacher, start)
    progress = progress or TerminalProgress()
    with _sole_trainer(identity):
        sought = record.training_facts(record.described(run, data, teacher))
        found = None if force_retrain else _find_finished(run, sought, device)
        if _agreed(found is not None):
            found = found or _find_finished(run, sought, device)  # a rank that looked before the writer had ended
            progress.end(found.record)
            return found
        job = _Job(run, data, teacher, (device, precision), identity)
        return job.train(progress, force_retrain, tensorboard, compile)


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


class _Job:
    """One training with its files: the record from start to end, the checkpoint, the weights."""

    def __init__(self, run: Run, data: Data, teacher: Teacher | None, place: tuple[torch.device, str], identity: str):
        self.run, self.data, self.teacher, self.identity = run, data, teacher, identity
        self.device, self.precision = place
        self.writes = not (dist.is_initialized() and dist.get_rank() > 0)
        self.checkpoint = artifacts.checkpoint_path(identity)

    def train(self, progress: Progress, afresh: bool, tensorboard: bool, compiled: bool) -> Trained:
        self.record = record.started(self.run, self.data, self.teacher, self.device, self.precision)
        name = artifacts.reserve(self.run.artifact_name, self.identity, self.record) if self.writes else "other rank"
        self.record = {"schema": artifacts.SCHEMA, "name": name, "identity": self.identity, **self.record}
        try:
            with torch.random.fork_rng():
                training = self._start(afresh, compiled)
                self._run_epochs(training, progress, tensorboard)
        except BaseException as error:
            self._failed(error)
            progress.end(self.record)
            raise
        progress.end(self.record)
        return Trained(training.network.eval(), self.run, self.record, cached=False)

    def _start(self, afresh: bool, compiled: bool) -> Training:
        training = Training(self.run, self.data, self.teacher, self.device, self.precision, compiled)
        if afresh and self.writes:
            self.checkpoint.unlink(missing_ok=True)
        if self.checkpoint.is_file() and not afresh:
            self._resume(training)
        size = self.data.image_size
        self.record["model"] = {
            "parameters": count_parameters(training.network),
            "macs": count_macs(training.network, size),
        }
        return training

    def _resume(self, training: Training) -> None:
        for half_written in self.checkpoint.parent.glob(f".{self.checkpoint.name}.*.tmp"):
            half_written.unlink(missing_ok=True)  # left by a kill; this process alone holds the run's lock
        state = artifacts.load_tensors(self.checkpoint, str(self.device))
        if not isinstance(state, dict) or state.get("precision") != self.precision:
            was = state.get("precision", "of another kind") if isinstance(state, dict) else "of another kind"
            raise ValueError(
                f"{self.checkpoint}: this checkpoint is {was}, precision here is {self.precision}; set precision "
                f"in the Run, or delete the file to start afresh"
            )
        training.restore(state)

    def _run_epochs(self, training: Training, progress: Progress, tensorboard: bool) -> None:
        progress.begin(self.record["name"], self.run.epochs, len(training.batches), training.epochs_done)
        while training.epochs_done < self.run.epochs:
            training.epoch(progress)
            if self.writes:
                artifacts.save_tensors(self.checkpoint, training.state())
                if tensorboard:
                    write_scalars(self.record["name"], training.history[-1])
            progress.epoch(training.history)
        training.network.load_state_dict(training.best["weights"])
        if self.writes:
            self._finish(training)

    def _finish(self, training: Training) -> None:
        """Test once, then write weights, sidecar, record, in this order: a finished record never lacks its weights."""
        probe = None if training.method.trains_classifier else fit_probe(training.network, self.data)
        predictions = infer(training.network, self.data, "test")  # in fp32, as anyone will who loads the weights
        if not predictions.logits.isfinite().all():
            raise FloatingPointError(
                f"the logits on the test images are not finite; lower lr = {self.run.lr} or take precision fp32"
            )
        tested = evaluate(predictions)
        path = artifacts.save_tensors(artifacts.weights_path(self.record["name"]), weights_of(training.network))
        self.record |= record.finished(
            training.history, training.best["epoch"], tested, self.run.selection, path, probe
        )
        self.record["environment"]["finished"] = record.now()
        artifacts.save_json(path.with_suffix(".json"), record.sidecar(self.record, self.run, self.data))
        artifacts.save_json(artifacts.record_path(self.record["name"]), self.record)
        self.checkpoint.unlink(missing_ok=True)

    def _failed(self, error: BaseException) -> None:
        """Note the failure in the record, unless what is stored is an earlier finished training of this run."""
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, KeyboardInterrupt):
            reason = "interrupted; the same run goes on from its last finished epoch"
        self.record |= {"status": "failed", "error": reason}
        with contextlib.suppress(OSError, ValueError):  # the disk may be the very failure
            stored = artifacts.load_record(self.record["name"]) if self.writes else None
            if stored and stored["status"] != "finished":
                artifacts.save_json(artifacts.record_path(self.record["name"]), self.record)


def write_scalars(name: str, row: dict) -> None:
    """Append one epoch's numbers to TensorBoard's log in runs/<name> under the artifacts' root."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(artifacts.root() / "runs" / name)) as writer:
        for key, value in row.items():
            if key != "epoch" and value is not None:
                writer.add_scalar(key, value, row["epoch"])


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

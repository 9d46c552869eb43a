"""One training with its files: the record from start to end, the checkpoint, the weights."""

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist

from kdhelpers import artifacts
from kdhelpers.data import Batches, Data
from kdhelpers.evaluation.linear_probe import fit_probe
from kdhelpers.evaluation.metrics import evaluate
from kdhelpers.evaluation.predictions import infer
from kdhelpers.models import count_macs, count_parameters
from kdhelpers.training import record
from kdhelpers.training.run import Run
from kdhelpers.training.student import Training, weights_of
from kdhelpers.training.teacher import Teacher


class Job:
    """What becomes of one `Run` on disk: `begin`, then `keep` after each epoch of its `training`, then `finish`; or
    `fail`, whose `error` stays.

    Only one process of a group writes; the others train along.
    """

    def __init__(
        self,
        run: Run,
        data: Data,
        teacher: Teacher | None,
        device: torch.device,
        precision: str,
        identity: str,
    ):
        self.run, self.data, self.teacher, self.device, self.precision = run, data, teacher, device, precision
        self.writes = not (dist.is_initialized() and dist.get_rank() > 0)
        self.checkpoint_file = artifacts.checkpoint_path(identity)
        self.training: Training | None = None
        self.error: BaseException | None = None
        described = record.started(run, data, teacher, device, precision)
        name = artifacts.reserve(run.artifact_name, identity, described) if self.writes else "other rank"
        self.record = {"schema": artifacts.SCHEMA, "name": name, "identity": identity, **described}

    @property
    def name(self) -> str:
        return self.record["name"]

    def begin(self, teacher: Teacher | None, batches: Batches, force_retrain: bool, compiled: bool) -> None:
        """Make the training, at its last finished epoch unless it is to start afresh."""
        if force_retrain and self.writes:
            self.checkpoint_file.unlink(missing_ok=True)
        training = Training(self.run, self.data, teacher, self.device, self.precision, compiled, batches)
        if self.checkpoint_file.is_file() and not force_retrain:
            self._resume(training)
        self.record["model"] = {
            "parameters": count_parameters(training.network),
            "macs": count_macs(training.network, self.data.image_size),
        }
        self.training = training

    @contextlib.contextmanager
    def isolate_failure(self) -> Iterator[None]:
        """A loss that is not finite, in here, is this job's failure and no other's."""
        try:
            yield
        except FloatingPointError as error:
            self.fail(error)

    def _resume(self, training: Training) -> None:
        for half_written in self.checkpoint_file.parent.glob(f".{self.checkpoint_file.name}.*.tmp"):
            half_written.unlink(missing_ok=True)  # left by a kill; this process alone holds the run's lock
        state = artifacts.load_tensors(self.checkpoint_file, str(self.device))
        if not isinstance(state, dict) or state.get("precision") != self.precision:
            was = state.get("precision", "of another kind") if isinstance(state, dict) else "of another kind"
            raise ValueError(
                f"{self.checkpoint_file}: this checkpoint is {was}, precision here is {self.precision}; set precision "
                f"in the Run, or delete the file to start afresh"
            )
        training.restore(state)

    def checkpoint(self, tensorboard: bool) -> None:
        """The checkpoint of the epoch that has just ended, and its scalars where they are wanted."""
        if self.writes:
            artifacts.save_tensors(self.checkpoint_file, self.training.state())
            if tensorboard:
                write_scalars(self.name, self.training.history[-1])

    def finish(self) -> None:
        """The selected weights; tested once, then written with sidecar and record, in this order: a finished record
        never lacks its weights."""
        training = self.training
        training.network.load_state_dict(training.best["weights"])
        if self.writes:
            self._write(training)
        if dist.is_initialized():  # the others have another BatchNorm's statistics, no probe and no figures
            shared = [self.record, weights_of(training.network)]
            dist.broadcast_object_list(shared, src=0)
            self.record = shared[0]
            training.network.load_state_dict(shared[1])

    def _write(self, training: Training) -> None:
        probe = None if training.method.trains_classifier else fit_probe(training.network, self.data)
        predictions = infer(training.network, self.data, "test")  # in fp32, as anyone will who loads the weights
        if not predictions.logits.isfinite().all():
            raise FloatingPointError(
                f"the logits on the test images are not finite; lower lr = {self.run.lr} or take precision fp32"
            )
        tested = evaluate(predictions)
        path = artifacts.save_tensors(artifacts.weights_path(self.name), weights_of(training.network))
        self.record |= record.finished(
            training.history, training.best["epoch"], tested, self.run.selection, path, probe
        )
        self.record["environment"]["finished"] = record.now()
        artifacts.save_json(path.with_suffix(".json"), record.sidecar(self.record, self.data))
        artifacts.save_json(artifacts.record_path(self.name), self.record)
        self.checkpoint_file.unlink(missing_ok=True)

    def fail(self, error: BaseException) -> None:
        """Note the failure in the record, unless what is stored is an earlier finished training of this run."""
        self.error = error
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, KeyboardInterrupt):
            reason = "interrupted; the same run goes on from its last finished epoch"
        self.record |= {"status": "failed", "error": reason}
        with contextlib.suppress(OSError, ValueError):  # the disk may be the very failure
            stored = artifacts.load_record(self.name) if self.writes else None
            if stored and stored["status"] != "finished":
                artifacts.save_json(artifacts.record_path(self.name), self.record)


def write_scalars(name: str, row: dict) -> None:
    """Append one epoch's numbers to TensorBoard's log in runs/<name> under the artifacts' root."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(artifacts.root() / "runs" / name)) as writer:
        for key, value in row.items():
            if key != "epoch" and value is not None:
                writer.add_scalar(key, value, row["epoch"])

"""One training with its files: the record from start to end, the checkpoint, the weights."""

import contextlib
import time
from collections.abc import Iterator

import torch.distributed as dist

from kdhelpers import artifacts
from kdhelpers.artifacts import rehearsed_root
from kdhelpers.data import Batches
from kdhelpers.evaluation.linear_probe import fit_probe
from kdhelpers.evaluation.metrics import evaluate
from kdhelpers.evaluation.predictions import infer
from kdhelpers.messages import inform
from kdhelpers.models import count_macs, count_parameters
from kdhelpers.training import record
from kdhelpers.training.checkpoint import Checkpoint, delete_half_written
from kdhelpers.training.group import is_writer, require_same_files
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.shared_teacher import SharedTeacher
from kdhelpers.training.student import Training, weights_of
from kdhelpers.weights.head import head_path
from kdhelpers.weights.load import load_weights


class Job:
    """`begin`, then `save_checkpoint` after each epoch of its `training`, then `finish`; or `fail`, which sets `error`.

    One process of a group writes; the others only train.
    """

    def __init__(self, inputs: Inputs):
        self.inputs, self.writes = inputs, is_writer()
        self.checkpoint = Checkpoint(inputs.identity)
        self.scalars = None  # TensorBoard's writer
        self.training: Training | None = None
        self.error: BaseException | None = None
        self.began = time.perf_counter()
        facts = record.started(inputs)
        self.earlier = unfinished_records(inputs.identity)
        name = self.reserve(facts) if self.writes else "other rank"
        self.record = {"schema": artifacts.SCHEMA, "name": name, "identity": inputs.identity, **facts}

    @property
    def name(self) -> str:
        return self.record["name"]

    def reserve(self, facts: dict) -> str:
        """Write the first record; returns its name."""
        return artifacts.reserve(self.inputs.run.artifact_name, self.inputs.identity, facts)

    def begin(self, batches: Batches, teacher: SharedTeacher | None, force_retrain: bool, compiled: bool) -> None:
        """Make the training: from its checkpoint if there is one, unless `force_retrain`."""
        if force_retrain and self.writes:
            self.checkpoint.delete()
        training = Training(self.inputs, batches, teacher if self.inputs.teacher else None, compiled)
        if teacher:
            teacher.begin_batch(None)  # forgets the images that shapes were taken from
        if self.checkpoint.path.is_file() and not force_retrain:
            self._resume(training)
        require_same_files(training.epochs_done)
        self.record["model"] = {
            "parameters": count_parameters(training.network),
            "macs": count_macs(training.network, self.inputs.data.image_size),
            **record.extra_size(training.network, training.method.predicting_head()),
        }
        self.training = training

    def _resume(self, training: Training) -> None:
        if self.writes:
            delete_half_written(self.checkpoint.path)  # left by a kill; only this process holds the run's lock
        state = self.checkpoint.load(str(self.inputs.device))
        training.restore(state)
        self._note_precision(state["precision"], training)
        times = [time for earlier in self.earlier for time in earlier.get("resumed", [])]
        self.record["resumed"] = [*times, record.now()]
        starts = [earlier["environment"]["started"] for earlier in self.earlier if "environment" in earlier]
        self.record["environment"]["started"] = min([*starts, self.record["environment"]["started"]])
        if self.writes:
            artifacts.save_json(artifacts.record_path(self.name), self.record)

    def _note_precision(self, before: str, training: Training) -> None:
        """Note in the record that earlier epochs had another precision; such a note of an earlier start is kept."""
        earlier = [note for record in self.earlier for note in record.get("notes", [])]
        notes = [note for note in earlier if note.startswith("precision: ")]
        if before != training.precision:
            notes.append(f"precision: {before} up to epoch {training.epochs_done}, then {training.precision}")
            inform(f"{self.name}: {notes[-1]}")
        self.record["notes"] = list(dict.fromkeys([*self.record["notes"], *notes]))

    @contextlib.contextmanager
    def isolate_failure(self) -> Iterator[None]:
        """A loss that is not finite fails this job alone."""
        try:
            yield
        except FloatingPointError as error:
            self.fail(error)

    def save_checkpoint(self, tensorboard: bool) -> None:
        """The checkpoint of the epoch that has just ended, and its scalars for TensorBoard if they are wanted."""
        if self.writes:
            training = self.training
            ends = training.method.stage_epochs, training.last_epoch
            self.checkpoint.keep(training.state(), write=training.epochs_done in ends)
            if tensorboard:
                self.scalars = self.scalars or scalar_writer(self.name, training.epochs_done)
                write_scalars(self.scalars, training.history[-1])

    def finish(self) -> None:
        """Test the selected weights once; then write head, sidecar, weights and record, in this order.

        So weights never lack their description and their head, nor a finished record its weights.
        """
        training = self.training
        training.optimizer.zero_grad()  # the test needs no gradients, and a graph's memory may hold them
        load_weights(training.model, training.best["weights"], self.name)
        if self.writes:
            self.store(training)
        if dist.is_initialized():  # other ranks have their own BatchNorm statistics and neither probe nor metrics
            shared = [self.record, weights_of(training.model)]
            dist.broadcast_object_list(shared, src=0)
            self.record = shared[0]
            load_weights(training.model, shared[1], self.name)

    def store(self, training: Training) -> None:
        data, run = self.inputs.data, self.inputs.run
        probe = None if training.method.trains_classifier else fit_probe(training.network, data)
        start = time.perf_counter()
        predictions = infer(training.model, data, "test")  # in fp32, as users of the weights will
        test_seconds = (time.perf_counter() - start) * len(data.test) / len(predictions.index)
        if not predictions.logits.isfinite().all():
            raise FloatingPointError(
                f"the logits on the test images are not finite; lower lr = {run.lr} or take precision fp32"
            )
        tested, selected = evaluate(predictions), training.best["epoch"]
        path, head = artifacts.weights_path(self.name), training.method.predicting_head()
        weights = artifacts.tensor_bytes(weights_of(training.network))
        facts = record.file_facts(path, weights)
        whole = self.record | record.finished(training.history, selected, tested, run.selection, facts, probe)
        if head:
            content = artifacts.tensor_bytes(weights_of(head))
            artifacts.write_atomic(head_path(path), content)
            whole["head"] = record.file_facts(head_path(path), content)
        if rehearsed_root():
            taken = (time.perf_counter() - self.began) / (training.history or [{}])[-1].get("lockstep", 1)
            whole["rehearsal"] = {"seconds": taken, "test_seconds": test_seconds}
        whole["environment"] = whole["environment"] | {"finished": record.now()}
        artifacts.save_json(path.with_suffix(".json"), record.sidecar(whole, data))
        artifacts.write_atomic(path, weights)
        artifacts.save_json(artifacts.record_path(self.name), whole)
        self.record = whole  # not before: a job whose files are missing has not finished
        self.close()
        self.checkpoint.delete()

    def close(self) -> None:
        self.checkpoint.close()
        if self.scalars:
            self.scalars.close()

    def fail(self, error: BaseException) -> None:
        """Write the last finished epoch, then note the failure in the record.

        The record of an earlier finished training of this run stays as it is.
        """
        self.error = error
        reason, last = f"{type(error).__name__}: {error}".splitlines()[0], self._save_last_epoch()
        if isinstance(error, KeyboardInterrupt):
            reason = f"interrupted; the same run continues from its last {last}"
        self.record |= {"status": "failed", "error": reason}
        with contextlib.suppress(OSError, ValueError):  # the failure may be the disk itself
            stored = artifacts.load_record(self.name) if self.writes else None
            if stored and stored["status"] != "finished":
                artifacts.save_json(artifacts.record_path(self.name), self.record)

    def _save_last_epoch(self) -> str:
        """Returns what the run continues from. The failure may be the disk or the device itself."""
        try:
            self.checkpoint.save_last()
        except (OSError, RuntimeError) as error:
            inform(f"{self.name}: continues from its last checkpoint, the epochs since then are lost: {error}")
            return "checkpoint"
        finally:
            self.close()
        return "finished epoch"


def unfinished_records(identity: str) -> list[dict]:
    """The records of a run that did not end; the next start replaces them."""
    return [r for r in artifacts.records() if r["identity"] == identity and r["status"] != "finished"]


def scalar_writer(name: str, epoch: int):
    """TensorBoard's log in runs/<name> under the artifacts' root; it hides what is there from `epoch` on."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(artifacts.root() / "runs" / name), purge_step=epoch)


def write_scalars(writer, row: dict) -> None:
    """Append one epoch's numbers to TensorBoard's log."""
    for key, value in row.items():
        if key != "epoch" and value is not None:
            writer.add_scalar(key, value, row["epoch"])
    writer.flush()

"""The training loop itself: one network, one method, one epoch after the other, and what a checkpoint holds.

No step waits for the device: batches are cut out of resident images there, loss terms and hits are summed there, and
everything is read once, at the end of an epoch.
"""

import copy
import math
import time
import zlib
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdhelpers.data import Batch, Batches, Data
from kdhelpers.device import RandomStream, autocast, keep_freed_memory, peak_memory_mib
from kdhelpers.evaluation.metrics import negative_log_likelihood, top_k_pct
from kdhelpers.evaluation.predictions import infer
from kdhelpers.methods import METHODS, Context, Method
from kdhelpers.models import FeatureExtractor, build_model
from kdhelpers.training.batching import training_batches
from kdhelpers.training.optim import build_optimizer, learning_rate
from kdhelpers.training.run import Run
from kdhelpers.training.teacher import Teacher
from kdhelpers.weights.load import find_teacher, start_from


def seed_everything(*parts: int | str) -> None:
    """Seed torch's generators by a mix of the parts, so that each purpose and epoch has its own stream."""
    torch.manual_seed(zlib.crc32(repr(parts).encode()))


class DistillationModule(nn.Module):
    """Student and method as one module, so that DDP, compile and the optimiser see all that is trained."""

    def __init__(self, student: FeatureExtractor, method: Method, teacher: Teacher | None):
        super().__init__()
        self.student, self.method = student, method
        self.__dict__["teacher"] = teacher  # not a submodule: never trained, saved or wrapped

    def forward(self, batch: Batch, epoch: int) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted loss terms, and how many images of the first view the student got right (a tensor)."""
        seen: list[Tensor] = []

        def student(view: Tensor, stop_at: str | None = None):
            outputs = self.student(view, stop_at=stop_at)
            seen.append(outputs.logits)
            return outputs

        terms = self.method(student, self.teacher, batch, epoch)
        with torch.no_grad():
            first = seen[0] if seen else None  # a method may stop early, or stack other images behind the first view
            known = first is not None and len(first) >= len(batch.labels)
            hits = (first[: len(batch.labels)].argmax(1) == batch.labels).sum() if known else batch.labels.new_zeros(())
        return terms, hits


class Training:
    """A training in progress: `begin_epoch`, `learn` from each batch, `end_epoch`. `state()` and `restore()` are all
    that a checkpoint needs.

    Whatever it draws at random comes from a stream of its own, so that trainings side by side do not disturb one
    another. `batches` are made by the run's rules unless given.
    """

    def __init__(
        self,
        run: Run,
        data: Data,
        teacher: Teacher | None,
        device: torch.device,
        precision: str,
        compiled: bool = False,
        batches: Batches | None = None,
    ):
        self.run, self.data, self.device, self.precision = run, data, device, precision
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if device.type == "cpu":
            keep_freed_memory()
        self.random = RandomStream(device)
        with self.random:
            joint = self._build(teacher)
        self.optimizer = build_optimizer(
            run.optimizer, joint.parameters(), run.lr, run.weight_decay, run.optimizer_options
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.batches = batches or training_batches(run, data, [self.method], device)
        if self.world > 1:
            # A first stage leaves parameters unused; each rank keeps its own memory bank and BatchNorm statistics.
            places = [device] if device.type == "cuda" else None
            joint = DistributedDataParallel(joint, places, broadcast_buffers=False, find_unused_parameters=True)
        self.joint = torch.compile(joint) if compiled else joint
        self.epochs_done, self.history, self.best = 0, [], None

    def _build(self, teacher: Teacher | None) -> DistillationModule:
        run = self.run
        seed_everything(run.seed, "weights")
        self.network = build_model(run.model, self.data.num_classes, **run.network_options)
        if run.start_from:
            start_from(self.network, find_teacher(run.start_from, run.dataset))
        self.network.to(self.device, memory_format=torch.channels_last)
        seed_everything(run.seed, "method")
        self.method = METHODS[run.method](**run.hyperparameters)
        self.student = FeatureExtractor(self.network)
        self.method.build(self._context(teacher))
        return DistillationModule(self.student, self.method.to(self.device), teacher)

    @torch.no_grad()
    def _context(self, teacher: Teacher | None) -> Context:
        side = self.data.image_size
        images = torch.zeros(2, 3, side, side, device=self.device)
        self.network.eval()
        with autocast(self.device, self.precision):
            outputs = self.student(images), teacher(images) if teacher else None
        self.network.train()
        facts = self.data.train.labels, self.data.num_classes
        return Context(*outputs, self._copy_student, *facts, list(self.network.parameters()))

    def _copy_student(self) -> FeatureExtractor:
        return FeatureExtractor(copy.deepcopy(self.network)).requires_grad_(False)

    def begin_epoch(self) -> None:
        """Get ready for the next epoch, counted from 1."""
        self.log, self.sizes, self.names = torch.empty(0), [], []
        with self.random:
            seed_everything(self.run.seed, "epoch", self.epochs_done + 1, self.rank)
        self.joint.train()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def step(self, batch: Batch) -> None:
        """One optimiser step. Nothing here waits for the device."""
        number, epoch = len(self.sizes), self.epochs_done + 1
        self._set_learning_rate(self.epochs_done + number / len(self.batches))
        self.optimizer.zero_grad(set_to_none=True)
        with self.random:  # a backward pass may draw as well
            with autocast(self.device, self.precision):
                terms, hits = self.joint(batch.first(self.method.views), epoch)
            self.scaler.scale(reduce(torch.add, terms.values())).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            row = torch.stack([*(term.float() for term in terms.values()), hits.float()])
            if number == 0:
                self.names, self.log = list(terms), row.new_empty(len(self.batches), len(row))
            self.log[number] = row
        self.sizes.append(len(batch.labels))

    def _set_learning_rate(self, time: float) -> None:
        """The rate of the schedule after `time` epochs, a float."""
        run = self.run
        schedule = run.schedule, run.schedule_options
        rate = learning_rate(*schedule, run.lr, time, run.epochs, run.warmup_epochs, 1 / len(self.batches))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _read_log(self, epoch: int) -> dict[str, float]:
        """Mean loss terms and accuracy over the epoch's images: the one look at the device.

        The log is [steps, terms + 1], the loss terms and the hits of each step.
        """
        names, log, sizes = self.names, self.log.cpu().double(), torch.tensor(self.sizes, dtype=torch.float64)
        terms, hits = log[:, :-1], log[:, -1]
        if bad := (~terms.isfinite()).nonzero().tolist():
            step, term = bad[0]  # later steps are spoilt by the first, and so are the other terms
            raise FloatingPointError(
                f"epoch {epoch}, step {step + 1}: loss term {names[term]} is {terms[step, term].item()}; "
                f"lower lr = {self.run.lr} or take precision fp32 (finished epochs are kept)"
            )
        totals = torch.cat([(terms * sizes[:, None]).sum(0), hits.sum()[None] * 100, sizes.sum()[None]])
        if self.world > 1:
            totals = totals.to(self.device)
            dist.all_reduce(totals)
        *means, accuracy = (totals[:-1] / totals[-1]).tolist()
        return {"loss": sum(means), **dict(zip(names, means, strict=True)), "train_top1_pct": accuracy}

    def end_epoch(self, seconds: float, lockstep: int = 1) -> None:
        """Look at the held-out images, and add a row to the history; the steps took `seconds`, this training's share
        of the time of `lockstep` trainings side by side.

        Raises FloatingPointError, with the epoch and the term's name, for a loss that is not finite.
        """
        epoch = self.epochs_done + 1
        row = {"epoch": epoch, **self._read_log(epoch)}
        learns_classes = self.method.trains_classifier and epoch > self.method.stage_epochs
        if not learns_classes:
            row["train_top1_pct"] = None  # the logits are those of an untrained layer
        images = len(self.data.train) + self.method.uses_unlabelled * self.batches.unlabelled_per_epoch
        row["images_per_second"] = images / seconds
        start = time.perf_counter()
        if learns_classes and len(self.data.val.labels):
            row |= self._validate(epoch)
        row |= {
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": seconds + time.perf_counter() - start,
            "peak_memory_mib": peak_memory_mib(self.device),
            **({"lockstep": lockstep} if lockstep > 1 else {}),
        }
        self.history.append(row)
        self.epochs_done = epoch
        self._select(row)

    def _validate(self, epoch: int) -> dict[str, float]:
        predictions = infer(self.student, self.data, "val", precision=self.precision)
        loss = negative_log_likelihood(predictions)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"epoch {epoch}: the loss on the held-out images is {loss}; lower "
                f"lr = {self.run.lr} or take precision fp32 (finished epochs are kept)"
            )
        return {"val_top1_pct": top_k_pct(predictions), "val_nll": loss}

    def _select(self, row: dict[str, float]) -> None:
        """Keep a copy of the weights that the run's rule prefers: the first best on held-out images, or the last.

        Never those of a first stage, whose upper layers are as random as they were: by chance they may score best.
        """
        if row["epoch"] <= self.method.stage_epochs:
            return
        last = self.run.selection == "last"
        if last or self.best is None or row["val_top1_pct"] > self.best["val_top1_pct"]:
            weights = None if last and row["epoch"] < self.run.epochs else weights_of(self.network)
            self.best = {"epoch": row["epoch"], "val_top1_pct": row.get("val_top1_pct"), "weights": weights}

    def state(self) -> dict:
        """Everything needed to go on, as tensors and plain containers."""
        return {
            "precision": self.precision,
            "epochs_done": self.epochs_done,
            "history": self.history,
            "best": self.best,
            "network": self.network.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict) -> None:
        """Go on from a `state()`. On the CPU the result is bit for bit that of a training never interrupted."""
        self.epochs_done, self.history, self.best = state["epochs_done"], state["history"], state["best"]
        for part in ("network", "method", "optimizer", "scaler"):
            getattr(self, part).load_state_dict(state[part])


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The state_dict as contiguous tensors on the CPU, copied."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}

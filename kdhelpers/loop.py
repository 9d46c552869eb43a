"""The training loop itself: one network, one method, one epoch after the other, and what a checkpoint holds.

No step waits for the device: batches are cut out of resident images there, loss terms and hits are summed there, and
everything is read once, at the end of an epoch.
"""

from __future__ import annotations

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
from kdhelpers.device import autocast, keep_freed_memory, peak_memory_mib
from kdhelpers.evaluation import infer, negative_log_likelihood, top_k_pct
from kdhelpers.methods import METHODS, Context, Method
from kdhelpers.models import Observed, build_model
from kdhelpers.optim import build_optimizer, learning_rate
from kdhelpers.progress import Progress
from kdhelpers.settings import Run
from kdhelpers.teachers import Teacher, start_from


def seed_everything(*parts: int | str) -> None:
    """Seed torch's generators by a mix of the parts, so that each purpose and epoch has its own stream."""
    torch.manual_seed(zlib.crc32(repr(parts).encode()))


class Joint(nn.Module):
    """Student and method as one module, so that DDP, compile and the optimiser see all that is trained."""

    def __init__(self, student: Observed, method: Method, teacher: Teacher | None):
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
            first = seen[0] if seen else None  # a method may stop early, or stack its views into one forward
            comparable = first is not None and len(first) == len(batch.labels)
            hits = (first.argmax(1) == batch.labels).sum() if comparable else torch.zeros_like(batch.labels[0])
        return terms, hits


class Training:
    """A training in progress. `state()` and `restore()` are all that a checkpoint needs."""

    def __init__(
        self,
        run: Run,
        data: Data,
        teacher: Teacher | None,
        device: torch.device,
        precision: str,
        compiled: bool = False,
    ):
        self.run, self.data, self.device, self.precision = run, data, device, precision
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if device.type == "cpu":
            keep_freed_memory()
        seed_everything(run.seed, "weights")
        self.network = build_model(run.model, data.num_classes, **run.network_options)
        if run.start_from:
            start_from(self.network, run.start_from, run.dataset)
        self.network.to(device, memory_format=torch.channels_last)
        seed_everything(run.seed, "method")
        self.method = METHODS[run.method](**run.hyperparameters)
        self.student = Observed(self.network)
        self.method.build(self._context(teacher))
        joint = Joint(self.student, self.method.to(device), teacher)
        self.optimizer = build_optimizer(
            run.optimizer, joint.parameters(), run.lr, run.weight_decay, run.optimizer_options
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.batches = Batches(
            data.train,
            run.augmentation,
            run.batch_size,
            data.mean,
            data.std,
            views=self.method.views,
            seed=run.seed,
            device=device,
            rank=self.rank,
            world=self.world,
        )
        if self.world > 1:
            # A first stage leaves parameters unused; each rank keeps its own memory bank and BatchNorm statistics.
            places = [device] if device.type == "cuda" else None
            joint = DistributedDataParallel(joint, places, broadcast_buffers=False, find_unused_parameters=True)
        self.joint = torch.compile(joint) if compiled else joint
        self.epochs_done, self.history, self.best = 0, [], None

    @torch.no_grad()
    def _context(self, teacher: Teacher | None) -> Context:
        side = self.data.image_size
        images = torch.zeros(2, 3, side, side, device=self.device)
        self.network.eval()
        with autocast(self.device, self.precision):
            outputs = self.student(images), teacher(images) if teacher else None
        self.network.train()
        return Context(*outputs, self._copy_student, self.data.train.labels, self.data.num_classes)

    def _copy_student(self) -> Observed:
        return Observed(copy.deepcopy(self.network)).requires_grad_(False)

    def step(self, batch: Batch, epoch: int, time: float) -> tuple[dict[str, Tensor], Tensor]:
        """One optimiser step at `time` (epochs done, a float). Nothing here waits for the device."""
        run = self.run
        schedule = run.schedule, run.schedule_options
        rate = learning_rate(*schedule, run.lr, time, run.epochs, run.warmup_epochs, 1 / len(self.batches))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.precision):
            terms, hits = self.joint(batch, epoch)
        self.scaler.scale(reduce(torch.add, terms.values())).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return terms, hits

    def train_epoch(self, epoch: int, progress: Progress) -> dict[str, float]:
        """All steps of one epoch (counted from 1); mean loss terms and accuracy over its images."""
        seed_everything(self.run.seed, "epoch", epoch, self.rank)
        self.joint.train()
        log, sizes = torch.empty(0), []
        for number, batch in enumerate(self.batches.epoch(epoch)):
            terms, hits = self.step(batch, epoch, epoch - 1 + number / len(self.batches))
            with torch.no_grad():
                row = torch.stack([*(term.float() for term in terms.values()), hits.float()])
                log = row.new_empty(len(self.batches), len(row)) if number == 0 else log
                log[number] = row
            sizes.append(len(batch.labels))
            progress.step(number + 1)
        return self._read(list(terms), log, torch.tensor(sizes, dtype=torch.float64), epoch)

    def _read(self, names: list[str], log: Tensor, sizes: Tensor, epoch: int) -> dict[str, float]:
        """The epoch's one look at the device: log is [steps, terms + 1], the loss terms and the hits of each step."""
        log = log.cpu().double()
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

    def epoch(self, progress: Progress) -> None:
        """Train one more epoch, look at the held-out images, and add a row to the history."""
        epoch, start = self.epochs_done + 1, time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        row = {"epoch": epoch, **self.train_epoch(epoch, progress)}
        learns_classes = self.method.trains_classifier and epoch > self.method.stage_epochs
        if not learns_classes:
            row["train_top1_pct"] = None  # the logits are those of an untrained layer
        row["images_per_second"] = len(self.data.train.labels) / (time.perf_counter() - start)
        if learns_classes and len(self.data.val.labels):
            predictions = infer(self.student, self.data, "val", precision=self.precision)
            row |= {"val_top1_pct": top_k_pct(predictions), "val_nll": negative_log_likelihood(predictions)}
            if not math.isfinite(row["val_nll"]):
                raise FloatingPointError(
                    f"epoch {epoch}: the loss on the held-out images is {row['val_nll']}; lower "
                    f"lr = {self.run.lr} or take precision fp32 (finished epochs are kept)"
                )
        row |= {
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": time.perf_counter() - start,
            "peak_memory_mib": peak_memory_mib(self.device),
        }
        self.history.append(row)
        self.epochs_done = epoch
        self._select(row)

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

"""The training loop itself: one network, one method, one epoch after the other, and what a checkpoint holds.

No step waits for the device: batches are cut out of resident images there, loss terms and hits are summed there, and
everything is read once, at the end of an epoch.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import time
import zlib
from functools import cache, reduce

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdhelpers.data import Batch, Batches, Data
from kdhelpers.evaluation import autocast, infer, negative_log_likelihood, top_k_pct
from kdhelpers.methods import METHODS, Context, Method
from kdhelpers.models import Observed, build_model
from kdhelpers.optim import build_optimizer, learning_rate
from kdhelpers.progress import Progress
from kdhelpers.settings import Run
from kdhelpers.teachers import Teacher

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, device: torch.device) -> str:
    """What "auto" means on a device: bf16 where it has it, fp16 on other GPUs, fp32 otherwise."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    return (
        "bf16"
        if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and has_avx512_bf16()
        else "fp32"
    )


def has_avx512_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively; emulated bf16 is slower than fp32."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return supported()


def seed_everything(*parts: int | str) -> None:
    """Seed torch's generators by a mix of the parts, so that each purpose and epoch has its own stream."""
    torch.manual_seed(zlib.crc32(repr(parts).encode()))


@cache
def keep_freed_memory() -> None:
    """Let glibc keep what a step frees: given back and asked for anew it costs a step on a CPU 25,000 page faults."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc: macOS, Windows, musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


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
            hits = torch.zeros_like(batch.labels[0]) if seen[0] is None else (seen[0].argmax(1) == batch.labels).sum()
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
        joint = DistributedDataParallel(joint, [device] if device.type == "cuda" else None) if self.world > 1 else joint
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
        return Context(self.network, *outputs, self.data.train.labels, self.data.num_classes)

    def step(self, batch: Batch, epoch: int, time: float) -> tuple[dict[str, Tensor], Tensor]:
        """One optimiser step at `time` (epochs done, a float). Nothing here waits for the device."""
        run = self.run
        rate = learning_rate(run.schedule, run.schedule_options, run.lr, time, run.epochs, run.warmup_epochs)
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
        row["images_per_second"] = len(self.data.train.labels) / (time.perf_counter() - start)
        if len(self.data.val.labels):
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
        """Keep a copy of the weights that the run's rule prefers: the first best on held-out images, or the last."""
        last = self.run.selection == "last"
        if last or self.best is None or row["val_top1_pct"] > self.best["val_top1_pct"]:
            weights = None if last and row["epoch"] < self.run.epochs else weights_of(self.network)
            self.best = {"epoch": row["epoch"], "val_top1_pct": row.get("val_top1_pct"), "weights": weights}

    def state(self) -> dict:
        """Everything needed to go on, as tensors and plain containers."""
        return {
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


def peak_memory_mib(device: torch.device) -> float:
    """Largest memory in use so far: allocated on the GPU since the last reset, else this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

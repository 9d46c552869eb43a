"""The state of one network in training: student and method as one module, optimiser, history, checkpoint."""

import inspect
import math
import time
import zlib

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdhelpers import artifacts
from kdhelpers.artifacts import rehearsed_root
from kdhelpers.data import Batch, Batches
from kdhelpers.device import autocast, keep_freed_memory, memory_format, peak_memory_mib
from kdhelpers.evaluation.validation import top1_and_loss
from kdhelpers.messages import inform
from kdhelpers.models import FeatureExtractor, HeadedNetwork, rebuild_model
from kdhelpers.training.context import context_of
from kdhelpers.training.epoch_log import EpochLog, faulty_term, total
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.module import DistillationModule
from kdhelpers.training.optim import build_optimizer, learning_rate
from kdhelpers.training.random_stream import RandomStream
from kdhelpers.training.teacher import Teacher
from kdhelpers.weights.load import load_weights, start_from

_OPTIONS = inspect.signature(DistributedDataParallel).parameters
SYNC = "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers"  # before torch 2.14
REHEARSED_RATE = 1e-3  # of the learning rate: after two steps at a high one the logits of a deep network are not finite


def seed_everything(*parts: int | str) -> None:
    """Seed torch's generators by a mix of the parts, so that each purpose and epoch has its own stream."""
    torch.manual_seed(zlib.crc32(repr(parts).encode()))


class Training:
    """One training in progress. `state()` and `restore()` are all that a checkpoint needs.

    Its random numbers come from a stream of its own, so trainings in lockstep do not disturb one another. `teacher` is
    the one of the inputs, or another that outputs the same from a cache. The loop is in `training.loop`.
    """

    def __init__(self, inputs: Inputs, batches: Batches, teacher: Teacher | None = None, compiled: bool = False):
        self.inputs, self.run, self.data, self.batches = inputs, inputs.run, inputs.data, batches
        self.device, self.precision = inputs.device, inputs.precision
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.random = RandomStream(self.device)
        with self.random:
            module = self._build(teacher or inputs.teacher, inputs)
        run = self.run
        self.optimizer = build_optimizer(
            run.optimizer, module.parameters(), run.lr, run.weight_decay, run.optimizer_options
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        module = self._over_ranks(module) if self.world > 1 else module
        self.module = torch.compile(module) if compiled else module
        self.epochs_done, self.history, self.best = 0, [], None
        if run.epochs == 0:
            self.best = {"epoch": 0, "val_top1_pct": None, "weights": weights_of(self.model)}

    def _over_ranks(self, module: DistillationModule) -> DistributedDataParallel:
        """Each rank keeps its own BatchNorm statistics. Memory banks and queues are equal without being exchanged.

        The search for unused parameters walks the graph in each step, so only trainings that may have some pay for it:
        those with a first stage, with an unused classifier, with a weight of 0, or with a user's own parts.
        """
        method, devices = self.method, [self.device] if self.device.type == "cuda" else None
        known = all(type(part).__module__.startswith("kdhelpers.") for part in (method, self.network))
        idle = not method.trains_classifier or method.predicting_head()
        unused = method.stage_epochs or idle or 0 in self.run.hyperparameters.values() or not known
        return DistributedDataParallel(module, devices, find_unused_parameters=bool(unused), **{SYNC: False})

    def _build(self, teacher: Teacher | None, inputs: Inputs) -> DistillationModule:
        run = self.run
        seed_everything(run.seed, "weights")
        self.network = self._network()
        if inputs.start:
            start_from(self.network, inputs.start)
        self.network.to(self.device, memory_format=memory_format(self.device))
        seed_everything(run.seed, "method")
        self.method = run.build_method()
        self.model = self.network  # what predicts
        self.student = FeatureExtractor(self.network)
        self.method.build(context_of(inputs, self.method, self.student, teacher))
        self.method.to(self.device)
        if head := self.method.predicting_head():
            self.model = HeadedNetwork(self.network, head)
            self.student = FeatureExtractor(self.model)
        return DistillationModule(self.student, self.method, teacher, run.placebo)

    def _network(self) -> nn.Module:
        run = self.run

        def build(options: dict) -> nn.Module:
            return rebuild_model(run.model, self.data.num_classes, **{"image_size": self.data.image_size, **options})

        try:
            return build(run.network_options)
        except FileNotFoundError as error:
            if not (run.pretrained and rehearsed_root()):
                raise
            inform(f"{error}; the rehearsal takes random weights")
            return build(run.model_options)

    @property
    def epoch(self) -> int:
        """The epoch that is being trained or comes next, counted from 1."""
        return self.epochs_done + 1

    @property
    def last_epoch(self) -> int:
        """The run's; in a rehearsal the first epoch that trains the whole student."""
        return min(self.run.epochs, self.method.stage_epochs + 1) if rehearsed_root() else self.run.epochs

    def begin_epoch(self) -> None:
        self.log = EpochLog(len(self.batches))
        with self.random:
            seed_everything(self.run.seed, "epoch", self.epoch, self.rank)
        self.module.train()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def set_learning_rate(self) -> None:
        """The rate of the schedule at this step. A captured step reads it from tensors."""
        run, steps = self.run, len(self.batches)
        now = self.epochs_done + len(self.log.sizes) / steps  # in epochs
        schedule = run.schedule, run.schedule_options
        peak = run.lr * REHEARSED_RATE if rehearsed_root() else run.lr
        self.lr = learning_rate(*schedule, peak, now, run.epochs, run.warmup_epochs, 1 / steps)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.lr)
            else:
                group["lr"] = self.lr

    def step(self, batch: Batch) -> None:
        """One optimiser step. The host never waits for the device: losses and hits are summed there."""
        self.set_learning_rate()
        with self.random:  # backward may draw random numbers too
            self.learn(batch)
        self.log.sizes.append(len(batch.labels))

    def learn(self, batch: Batch) -> None:
        """The device's part of a step: what a CUDA graph holds. From step to step only tensors change."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.precision):
            terms, hits = self.module(batch.first(self.method.views), self.epoch)
        loss = total(self.run.method, terms)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        if self.scaler.is_enabled():
            self.log.add_skipped(self.scaler._found_inf_per_device(self.optimizer).values())
            self._last_batch = batch
        self.scaler.update()
        self.log.add(terms, hits)

    def end_epoch(self, seconds: float, lockstep: int = 1) -> None:
        """Validate, and add a row to the history. `seconds`: this training's share of the steps' time, of `lockstep`.

        Raises FloatingPointError, with the epoch and the name of the term, for a loss that is not finite.
        """
        remedy = f"lower lr = {self.run.lr} or take precision fp32 (finished epochs are kept)"
        row = {"epoch": self.epoch, **self.log.read(self.epoch, remedy), **self.method.measure()}
        if (skipped := self.log.skipped()) is not None:
            row["skipped_steps"] = skipped
            self._check_gradients(skipped, remedy)
        trains_classes = self.method.trains_classifier and self.epoch > self.method.stage_epochs
        if not trains_classes or self.method.mixes_images:
            row["train_top1_pct"] = None  # the classifier is untrained; a mixed image has two labels
        images = len(self.data.train) + self.method.uses_unlabelled * self.batches.unlabelled_per_epoch
        row["images_per_second"] = images / seconds
        start = time.perf_counter()
        if trains_classes and len(self.data.val):
            row |= self._validate(remedy)
            seconds += (time.perf_counter() - start) * len(self.data.val) / len(self.batches.held_out)
        row |= {
            "lr": self.lr,
            "seconds": seconds,
            "peak_memory_mib": peak_memory_mib(self.device),
            **({"lockstep": lockstep} if lockstep > 1 else {}),
        }
        self.history.append(row)
        self.epochs_done += 1
        self._keep_best_weights(row)

    def _check_gradients(self, skipped: int, remedy: str) -> None:
        """FloatingPointError if the scaler skipped all steps for a gradient that is not finite unscaled either."""
        if skipped < len(self.log.sizes):
            return
        module = getattr(self.module, "module", self.module)  # without DDP
        with autocast(self.device, self.precision):
            terms, _ = module(self._last_batch.first(self.method.views), self.epoch)
        if term := faulty_term(terms, [value for value in module.parameters() if value.requires_grad]):
            fault = f"epoch {self.epoch}: all {skipped} steps were skipped: the gradient of {term} is not finite"
            raise FloatingPointError(f"{fault}; {remedy}")

    def _validate(self, remedy: str) -> dict[str, float]:
        accuracy, loss = top1_and_loss(self.student, self.batches, self.precision)
        if not math.isfinite(loss):
            raise FloatingPointError(f"epoch {self.epoch}: the loss on the held-out images is {loss}; {remedy}")
        return {"val_top1_pct": accuracy, "val_nll": loss}

    def _keep_best_weights(self, row: dict[str, float]) -> None:
        """Keep a copy of the weights that the run's rule prefers: the first best on held-out images, or the last.

        Epochs of a first stage do not count: their upper layers are still random.
        """
        if row["epoch"] <= self.method.stage_epochs:
            return
        last = self.run.selection == "last"
        if last or self.best is None or row["val_top1_pct"] > self.best["val_top1_pct"]:
            wanted = not last or row["epoch"] == self.last_epoch
            state = self.model.state_dict()  # the copy stays on the device until it is written
            weights = {name: value.clone() for name, value in state.items()} if wanted else None
            self.best = {"epoch": row["epoch"], "val_top1_pct": row.get("val_top1_pct"), "weights": weights}

    def state(self) -> dict:
        """Everything that a resumed training needs, as tensors and plain containers; `best` alone is a copy."""
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
        """Resume from a `state()`. On the CPU the result is bit for bit that of an uninterrupted training.

        The state may come from another device or precision: the optimiser keeps its own options, such as `capturable`.
        Raises ValueError that names the checkpoint if it does not fit.
        """
        with artifacts.reading(artifacts.checkpoint_path(self.inputs.identity), "delete it and run again"):
            self._restore(state)

    def _restore(self, state: dict) -> None:
        self.epochs_done, self.history, self.best = state["epochs_done"], state["history"], state["best"]
        load_weights(self.network, state["network"], "checkpoint")
        self.method.load_state_dict(state["method"])
        own = [dict(group) for group in self.optimizer.param_groups]  # loading copies what they hold
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict(state["optimizer"] | {"param_groups": groups})
        for group, options in zip(self.optimizer.param_groups, own, strict=True):
            group.update(options)
        if state["scaler"]:  # empty in a precision without one
            self.scaler.load_state_dict(state["scaler"])


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The state_dict as contiguous tensors on the CPU, copied."""
    state = network.state_dict()
    return {name: torch.empty(value.shape, dtype=value.dtype).copy_(value) for name, value in state.items()}

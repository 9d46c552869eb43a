"""A whole training step of Shake-Shake 26 2x32d (data, cutout, loss, metrics, optimiser), batch 64, as in `01_teacher`.

Ours is an epoch of one step of the package's loop. Bound: the network's forward and backward alone, its random mixing
included. Peer-style: PIL data set, two DataLoader workers, fp32 NCHW, cutout on the host, coefficients expanded to the
maps, each branch with a ReLU of its own, `.item()` in every step. Each case has a process of its own; they take turns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import pair
from benchmarks.measure import Timing, interleave_apart, row
from kdhelpers.display.progress import Progress
from kdhelpers.models import build_model
from kdhelpers.models.networks.shake_shake import ShakeBlock
from kdhelpers.training.loop import train_epoch
from kdhelpers.training.run import Run
from kdhelpers.training.student import Training

GOAL, IMAGES, CUTOUT = 1.05, 50_000, 16
LR, MOMENTUM, WEIGHT_DECAY = 0.2, 0.9, 1e-4


def run(threads: int = 1, device: str = "cpu", rounds: int = 7) -> list[dict]:
    torch.set_num_threads(threads)
    precisions = pair.precisions(device)
    kinds = [("peer-style", "fp32"), *((kind, precision) for precision in precisions for kind in ("bound", "ours"))]
    timings = interleave_apart(prepare, kinds, threads, rounds, device)
    rows = [row(name, timing, "ms/step", scale=1e3) for name, timing in timings.items()]
    return rows + [line for precision in precisions for line in ratios(timings, precision)]


def prepare(kind: str, precision: str, threads: int, device: str) -> Callable[[], object]:
    """What one step of a case runs."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if kind == "bound":
        return bare(precision, device)
    if kind == "ours":
        training = ours(precision, device)
        return lambda: train_epoch([training], Progress())
    return PeerStyle(torch.device(device)).step


def ours(precision: str, device: str) -> Training:
    run = Run(
        role="teacher",
        dataset="cifar100",
        model="shake_shake",
        lr=LR,
        epochs=1800,
        weight_decay=WEIGHT_DECAY,
        optimizer_options={"momentum": MOMENTUM, "nesterov": True},
        augmentation=f"crop flip cutout={CUTOUT}",
        batch_size=pair.BATCH,
        precision=precision,
        selection="last",
        val_fraction=0,
    )
    return pair.training_of(run, pair.data_of(pair.images_and_labels(pair.BATCH)), device=device)


def bare(precision: str, device: str) -> Callable[[], None]:
    """The network's forward and backward on a batch that is already there."""
    return pair.bare(None, precision, device=device, student=build_model("shake_shake", pair.CLASSES))


class PeerMix(torch.autograd.Function):
    """The mixture with both coefficients as large as the maps."""

    @staticmethod
    def forward(ctx, first: Tensor, second: Tensor) -> Tensor:
        ahead = torch.rand(len(first), device=first.device).view(-1, 1, 1, 1).expand_as(first)
        return ahead * first + (1 - ahead) * second

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, Tensor]:
        back = torch.rand(len(slope), device=slope.device).view(-1, 1, 1, 1).expand_as(slope)
        return back * slope, (1 - back) * slope


class PeerBlock(ShakeBlock):
    """Every path begins with a ReLU of its own, as in the peers' block."""

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(F.relu(x)) if len(self.shortcut) else x
        return shortcut + PeerMix.apply(self.residual_path1(F.relu(x)), self.residual_path2(F.relu(x)))


class PeerStyle:
    """The usual loop over a shuffling DataLoader, the learning rate set in every step."""

    def __init__(self, device: torch.device):
        self.device, self.network = device, build_model("shake_shake", pair.CLASSES).to(device).train()
        for module in self.network.modules():
            if isinstance(module, ShakeBlock):
                module.__class__ = PeerBlock
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), LR, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
        )
        steps = 1800 * IMAGES // pair.BATCH
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.batches = pair.pil_batches(pair.images_and_labels(pair.BATCH), extra=cutout)
        self.losses, self.accuracies = pair.Average(), pair.Average()

    def step(self) -> None:
        images, labels, _index = next(self.batches)
        images, labels = images.to(self.device), labels.to(self.device)
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.losses.update(loss.item(), len(images))
        self.accuracies.update((logits.argmax(1) == labels).float().mean().item(), len(images))


def cutout(image: Tensor) -> Tensor:
    """A square of one image, [3, 32, 32], set to 0 around a random pixel."""
    row, column = (int(torch.randint(32, ())) for _ in range(2))
    half = CUTOUT // 2
    image[:, max(row - half, 0) : row + half, max(column - half, 0) : column + half] = 0
    return image


def ratios(timings: dict[str, Timing], precision: str) -> list[dict]:
    ours, bound = timings[f"ours {precision}"], timings[f"bound {precision}"]
    over, gain = ours.ratio_to(bound), timings["peer-style fp32"].ratio_to(ours)
    return [
        row(f"ours / bound, {precision}", over, "x", over, f"<= {GOAL}", over <= GOAL),
        row(f"peer-style / ours, {precision}", gain, "x", gain),
        row(f"ours, {precision}", pair.BATCH / ours.median, "images/s"),
        row(f"bound, {precision}", pair.BATCH / bound.median, "images/s"),
        row(f"an epoch of {IMAGES:,} images, ours, {precision}", IMAGES / pair.BATCH * ours.median, "s"),
    ]

"""The distillation step that the benchmarks time: resnet32x4 teaches resnet8x4, 32 px, 100 classes, logit matching.

Three forms of it: `ours` is the loop of `kdhelpers` itself; `PeerStyle` is the usual research loop, written by us
in the behaviour of RepDistiller's; `bare` is what no loop can do without.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.data import Batches, Data, Split
from kdhelpers.device import DTYPES, autocast, keep_freed_memory, memory_format, resolve_precision
from kdhelpers.models import FeatureExtractor, build_model
from kdhelpers.models.networks.cifar_resnet import BasicBlock
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.loop import batches_of
from kdhelpers.training.run import Run
from kdhelpers.training.student import Training
from kdhelpers.training.teacher import Teacher

CLASSES = 100
BATCH = 64
TEMPERATURE, CE_WEIGHT, KD_WEIGHT = 4.0, 0.1, 0.9
LR, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 5e-4
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


def images_and_labels(count: int, side: int = 32) -> Split:
    """Noise, by default of CIFAR's shape, in classes of one size: a step's time does not depend on the picture."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(count) % CLASSES)


def precisions(device: torch.device | str) -> list[str]:
    """fp32, and bf16 if the device multiplies it natively."""
    return ["fp32", "bf16"] if resolve_precision("auto", torch.device(device)) == "bf16" else ["fp32"]


def data_of(train: Split) -> Data:
    """These as all the training images of a CIFAR-100 without held-out or test images."""
    none, names = train.select(torch.arange(0)), [str(label) for label in range(CLASSES)]
    return Data("cifar100", train, none, none, names, None, None, MEAN, STD)


def teacher_network() -> nn.Module:
    """An untrained teacher whose BatchNorm statistics fit its activations, as a trained one's do."""
    torch.manual_seed(1)
    network = build_model("resnet32x4", CLASSES)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(BATCH, 3, 32, 32))
    return network.eval()


def student_network() -> nn.Module:
    return build_model("resnet8x4", CLASSES)


def ours(
    network: nn.Module,
    precision: str,
    steps: int,
    batch_size: int = BATCH,
    taught: bool = True,
    device: torch.device | str = "cpu",
) -> Training:
    """The package's own training of an epoch of `steps` steps, data included; unless `taught`, cross-entropy alone."""
    weights = {"temperature": TEMPERATURE, "ce_weight": CE_WEIGHT, "kd_weight": KD_WEIGHT}
    by_teacher = {"teacher": "resnet32x4", "method": "lm", "hyperparameters": weights}
    run = Run(
        dataset="cifar100",
        model="resnet8x4",
        **(by_teacher if taught else {}),
        lr=LR,
        epochs=1000,
        weight_decay=WEIGHT_DECAY,
        optimizer_options={"momentum": MOMENTUM},
        schedule="constant",
        batch_size=batch_size,
        precision=precision,
        selection="last",
        val_fraction=0,
    )
    data = data_of(images_and_labels(steps * batch_size))
    teacher = Teacher(copy.deepcopy(network), device, DTYPES[precision]) if taught else None
    return training_of(run, data, teacher, device=device)


def training_of(
    run: Run,
    data: Data,
    teacher: Teacher | None = None,
    batches: Batches | None = None,
    device: torch.device | str = "cpu",
) -> Training:
    """A training of the package, as `fit` makes it; `teacher` may be one that others share."""
    inputs = Inputs(run, data, torch.device(device), run.precision, teacher)
    return Training(inputs, batches or batches_of([inputs]))


def bare(
    network: nn.Module | None,
    precision: str,
    batch_size: int = BATCH,
    device: torch.device | str = "cpu",
    student: nn.Module | None = None,
    side: int = 32,
) -> Callable[[], None]:
    """Folded teacher forward, student forward and backward on a batch that is already there: the bound of a step.

    network: the teacher; None leaves its forward out.
    """
    device, dtype = torch.device(device), DTYPES[precision]
    keep_freed_memory()  # as ours does: a bound may not lose by what it could have had
    teacher = Teacher(copy.deepcopy(network), device, dtype).features.model if network is not None else None
    student = (student or student_network()).to(device, memory_format=memory_format(device))
    images = torch.randn(batch_size, 3, side, side).to(device, memory_format=memory_format(device))
    teacher_images = images.to(dtype)

    def step() -> None:
        if teacher is not None:
            with torch.no_grad():
                teacher(teacher_images)
        with autocast(device, precision):
            logits = student(images)
        logits.float().sum().backward()
        student.zero_grad(set_to_none=True)

    return step


class PilImages(torch.utils.data.Dataset):
    """A data set as torchvision's CIFAR: one PIL image at a time through crop, flip, tensor, normalise."""

    def __init__(self, split: Split, length: int, extra: Callable[[Tensor], Tensor] | None = None):
        from torchvision import transforms

        self.images, self.labels, self.length = split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist(), length
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
                *([extra] if extra else []),
            ]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        from PIL import Image

        place = index % len(self.labels)
        return self.transform(Image.fromarray(np.ascontiguousarray(self.images[place]))), self.labels[place], index


def pil_batches(
    split: Split, batch_size: int = BATCH, workers: int = 2, extra: Callable[[Tensor], Tensor] | None = None
) -> Iterator:
    """An epoch of 50000 such images from a shuffling DataLoader; `extra` is one more step of an image's transform."""
    images = PilImages(split, 50_000, extra)
    return iter(torch.utils.data.DataLoader(images, batch_size, shuffle=True, num_workers=workers))


class PeerBlock(BasicBlock):
    """The last ReLU leaves its input alone, as the peers' block hands out that pre-activation too."""

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        out += shortcut
        return F.relu(out)


def peer_network(network: nn.Module) -> FeatureExtractor:
    """A copy in NCHW with the peers' blocks, that gives its feature maps with the logits."""
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in network.modules():
        if isinstance(module, BasicBlock):
            module.__class__ = PeerBlock
    return FeatureExtractor(network)


class PeerStyle:
    """The usual loop: fp32, NCHW, unfolded teacher, accuracies and the loss's `.item()` in every step."""

    def __init__(self, teacher: nn.Module, student: nn.Module, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.teacher = peer_network(teacher).to(self.device).eval()
        self.student = peer_network(student).to(self.device).train()
        self.optimizer = torch.optim.SGD(self.student.parameters(), LR, MOMENTUM, weight_decay=WEIGHT_DECAY)
        self.losses, self.top1, self.top5 = Average(), Average(), Average()

    def train(self, batches: Iterator, steps: int) -> None:
        for _ in range(steps):
            images, labels, _index = next(batches)
            self.step(images.float().to(self.device), labels.to(self.device))

    def step(self, images: Tensor, labels: Tensor) -> None:
        logits, *self.student_features = self.student(images)  # kept until the next step's take their place
        with torch.no_grad():
            teacher_logits, *self.teacher_features = self.teacher(images)
        soft_student = F.log_softmax(logits / TEMPERATURE, dim=1)
        soft_teacher = F.softmax(teacher_logits / TEMPERATURE, dim=1)
        divergence = F.kl_div(soft_student, soft_teacher, reduction="sum") * TEMPERATURE**2 / len(images)
        loss = CE_WEIGHT * F.cross_entropy(logits, labels) + KD_WEIGHT * divergence
        top1, top5 = _accuracy(logits, labels)
        self.losses.update(loss.item(), len(images))
        self.top1.update(top1, len(images))
        self.top5.update(top5, len(images))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Average:
    """A running mean, kept up to date in every step."""

    def __init__(self):
        self.sum = self.count = self.mean = 0.0

    def update(self, value: float | Tensor, times: int) -> None:
        self.sum += value * times
        self.count += times
        self.mean = self.sum / self.count


@torch.no_grad()
def _accuracy(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """Top-1 and top-5 in percent."""
    predicted = logits.topk(5, 1, True, True).indices.t()
    correct = predicted.eq(labels.view(1, -1).expand_as(predicted))
    return [correct[:k].reshape(-1).float().sum(0, keepdim=True).mul_(100 / len(labels)) for k in (1, 5)]

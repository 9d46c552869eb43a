"""Settings that might be faster: each on and off, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks import pair
from benchmarks.gpu.session import Session, skipped
from benchmarks.gpu.timing import cudnn, free, interleaved, repeated, window_row
from benchmarks.gpu.workloads import settled, teacher_of
from kdhelpers.device import autocast
from kdhelpers.models import build_model

MODELS = ("resnet20", "resnet8x4", "vgg8")
INFERRED, TAUGHT = (500, 2500), (64, 1024)


def toggles(session: Session) -> Iterator[dict]:
    for model in MODELS:
        yield from _training(session, model)
        yield from _batches(session, f"{model}, inference", INFERRED, _forward(session, model))
        teacher = teacher_of(session, model)
        yield from _batches(session, f"{model}, folded teacher", TAUGHT, lambda images, t=teacher: t(images))
        free(session.device)


def _training(session: Session, model: str) -> Iterator[dict]:
    """Forward and backward in both layouts, without and with the search for the fastest kernel."""
    steps = session.scale.steps
    formats = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
    cases = {name: repeated(_step(session, model, layout), steps) for name, layout in formats.items()}
    for benchmark in (False, True):
        case = f"{model}, forward and backward, {{}}, cudnn.benchmark {'on' if benchmark else 'off'}"
        if benchmark and session.device.type != "cuda":
            yield skipped(case.format("both layouts"), "cudnn needs an NVIDIA GPU")
            continue
        with cudnn(benchmark=benchmark):
            found = interleaved(cases, session.device, steps)
        for name, window in found.items():
            yield window_row(case.format(name), window)


def _step(session: Session, model: str, layout: torch.memory_format) -> Callable[[], None]:
    device, side = session.device, session.scale.side
    network = build_model(model, pair.CLASSES).to(device, memory_format=layout)
    images = torch.randn(session.scale.batch, 3, side, side).to(device, memory_format=layout)

    def step() -> None:
        with autocast(device, session.precision):
            logits = network(images)
        logits.float().sum().backward()
        network.zero_grad(set_to_none=True)

    return step


def _forward(session: Session, model: str) -> Callable[[torch.Tensor], object]:
    network = settled(session, model)

    @torch.no_grad()
    def forward(images: torch.Tensor) -> object:
        with autocast(session.device, session.precision):
            return network(images)

    return forward


def _batches(session: Session, case: str, sizes: tuple[int, ...], work: Callable) -> Iterator[dict]:
    """Milliseconds per 1,000 images, by batch size."""
    device, side = session.device, session.scale.side
    sizes = tuple(max(2, size // 100) for size in sizes) if session.small else sizes
    for size in sizes:
        images = torch.randn(size, 3, side, side).to(device)
        steps = 1 if session.small else max(4, 10_000 // size)
        window = interleaved({case: repeated(lambda images=images: work(images), steps)}, device, steps)[case]
        scaled = window._replace(ms=1e3 * window.ms / size, host_ms=1e3 * window.host_ms / size)
        yield window_row(f"{case}, batch {size}", scaled, unit="ms/1000 images")

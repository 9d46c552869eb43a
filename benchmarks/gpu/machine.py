"""The ceilings of the device: products, copies, launches, and what the host takes for an operation."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.dispatch import Counting
from benchmarks.gpu.session import Session, attempts, skipped
from benchmarks.gpu.timing import captured, interleaved, repeated
from benchmarks.measure import row
from kdhelpers.device import memory_format
from kdhelpers.models import build_model


def machine(session: Session) -> Iterator[dict]:
    yield row("torch", None, "") | {"note": torch.__version__}
    if session.device.type == "cuda":
        yield from attempts("the GPU", _gpu(session))
    yield from _rates(session)
    yield from _launches(session)
    yield _host(session)


def _gpu(session: Session) -> Iterator[dict]:
    free, total = torch.cuda.mem_get_info(session.device)
    yield row("free memory", free / 2**30, "GiB") | {"note": f"of {total / 2**30:.1f}"}
    yield row("versions", None, "") | {"note": f"CUDA {torch.version.cuda}, cudnn {torch.backends.cudnn.version()}"}
    capability = ".".join(map(str, torch.cuda.get_device_capability(session.device)))
    kernels = " ".join(torch.cuda.get_arch_list())
    yield row("compute capability", None, "") | {"note": f"{capability}; torch has kernels for {kernels}"}


def _rates(session: Session) -> Iterator[dict]:
    device, side = session.device, 256 if session.small else 8192
    dtype = torch.float32 if session.small else torch.bfloat16
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(2**22 if session.small else 2**30, dtype=torch.uint8, device=device)
    target, steps = torch.empty_like(source), 2 if session.small else 20
    cases = {"product": repeated(lambda: a @ b, steps), "copy": repeated(lambda: target.copy_(source), steps)}
    found = interleaved(cases, device, steps)
    rate = 2 * side**3 / found["product"].ms / 1e9
    yield row(f"product of two {str(dtype)[6:]} matrices of side {side}", rate, "TFLOP/s")
    yield row("copy, read and written", 2 * source.numel() / found["copy"].ms / 1e9, "TB/s")


def _launches(session: Session) -> Iterator[dict]:
    one, device = torch.zeros(1, device=session.device), session.device
    steps = 20 if session.small else 1000
    empty = interleaved({"launch": repeated(lambda: one.add_(1), steps)}, device, steps)["launch"]
    yield row("launch of an operation on one number", 1e3 * empty.ms, "us") | {"host_ms": empty.host_ms}
    for nodes in (100, 300):
        case = f"replay of a graph of {nodes} nodes"
        if device.type != "cuda":
            yield skipped(case, "CUDA graphs need an NVIDIA GPU")
            continue
        replay = captured(repeated(lambda: one.add_(1), nodes), device)
        window = interleaved({case: repeated(replay, 100)}, device, 100)[case]
        yield row(case, 1e3 * window.ms, "us") | {"host_ms": window.host_ms}


def _host(session: Session) -> dict:
    """Forward and backward of an eager resnet8: the host's time over its operations."""
    device, batch, side, steps = session.device, session.scale.batch, session.scale.side, session.scale.steps
    network = build_model("resnet8", 100).to(device, memory_format=memory_format(device))
    images = torch.randn(batch, 3, side, side).to(device, memory_format=memory_format(device))

    def step() -> None:
        network(images).sum().backward()
        network.zero_grad(set_to_none=True)

    with Counting() as mode:
        step()
    window = interleaved({"eager": repeated(step, steps)}, device, steps)["eager"]
    count = mode.counts.total()
    line = row("host's time for an operation, eager resnet8", 1e3 * window.host_ms / count, "us")
    return line | {"note": f"{count} operations"}

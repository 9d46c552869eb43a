"""Times of whole windows of steps: the device's by CUDA events, the host's until it has launched the last step."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from benchmarks.measure import note, row
from kdhelpers.device import peak_memory_mib, synchronize


class Window(NamedTuple):
    """Milliseconds per step: of the device, and of the host alone. On the CPU they are equal."""

    ms: float
    host_ms: float
    peak_mib: float = 0.0


def interleaved(
    cases: dict[str, Callable[[], Window | None]], device: torch.device, steps: int, rounds: int = 2
) -> dict[str, Window]:
    """The median window of each case; the cases take turns after a call of each that warms up.

    A case runs `steps` steps. It may return a window of its own, which leaves out what it does once.
    """
    found: dict[str, list[Window]] = {name: [] for name in cases}
    for case in cases.values():
        _window(case, device, steps)
    for _ in range(rounds):
        for name, case in cases.items():
            found[name].append(_window(case, device, steps))
    return {name: Window(*map(statistics.median, zip(*windows, strict=True))) for name, windows in found.items()}


def _window(case: Callable[[], Window | None], device: torch.device, steps: int) -> Window:
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    marks = Marks(device)
    marks.set()
    own = case()
    marks.set()
    return own or marks.window(steps)


class Marks:
    """Two moments: when the host came to them, and when an NVIDIA GPU did."""

    def __init__(self, device: torch.device):
        self._device, self._host, self._events = device, [], []

    def set(self) -> None:
        self._host.append(time.perf_counter())
        if self._device.type == "cuda":
            self._events.append(torch.cuda.Event(enable_timing=True))
            self._events[-1].record()

    def window(self, steps: int) -> Window:
        """The steps between the marks. Waits for the device."""
        synchronize(self._device)
        waited, (start, launched) = time.perf_counter(), self._host
        ms = self._events[0].elapsed_time(self._events[1]) if self._events else 1e3 * (launched - start)
        if self._device.type == "mps":
            ms = 1e3 * (waited - start)
        return Window(ms / steps, 1e3 * (launched - start) / steps, peak_memory_mib(self._device))


def repeated(step: Callable[[], object], steps: int) -> Callable[[], None]:
    def case() -> None:
        for _ in range(steps):
            step()

    return case


def captured(step: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """The step as one replay of a CUDA graph; itself on other devices, or if it cannot be captured."""
    if device.type != "cuda":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another thread may plan the next epoch
            step()
    except RuntimeError as error:
        note(f"  not captured: {error}".splitlines()[0])
        return step
    return graph.replay


def window_row(case: str, window: Window, bound: Window | None = None, goal: float | None = None, unit="ms/step"):
    """ratio: to the bound. The host's share says whether a step waits for its launches."""
    ratio = window.ms / bound.ms if bound else None
    judged = goal is not None and ratio is not None
    line = row(case, window.ms, unit, ratio, f"<= {goal}x bound" if judged else "", ratio <= goal if judged else None)
    return line | {"host_ms": window.host_ms, "peak_mib": window.peak_mib}


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextlib.contextmanager
def cudnn(**settings: bool) -> Iterator[None]:
    """The block with these settings of cudnn; `torch.backends.cudnn.flags` would change others too."""
    before = {name: getattr(torch.backends.cudnn, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(torch.backends.cudnn, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(torch.backends.cudnn, name, value)

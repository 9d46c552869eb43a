"""Times of whole windows of steps: the device's by CUDA events, the host's until it has launched the last step."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.measure import row
from kdhelpers.device import peak_memory_mib, synchronize


class Window(NamedTuple):
    """Milliseconds per step: of the device, and of the host alone. On the CPU they are equal."""

    ms: float
    host_ms: float
    peak_mib: float = 0.0


def interleaved(
    cases: dict[str, Callable[[], float | None]], device: torch.device, steps: int, rounds: int = 2
) -> dict[str, Window]:
    """The median window of each case; the cases take turns after a call of each that warms up.

    A case runs `steps` steps. It may return when the host had launched the last one, by `time.perf_counter`.
    """
    found: dict[str, list[Window]] = {name: [] for name in cases}
    for case in cases.values():
        _window(case, device, steps)
    for _ in range(rounds):
        for name, case in cases.items():
            found[name].append(_window(case, device, steps))
    return {name: Window(*map(statistics.median, zip(*windows, strict=True))) for name, windows in found.items()}


def _window(case: Callable[[], float | None], device: torch.device, steps: int) -> Window:
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    first, last = _mark(device), None
    start = time.perf_counter()
    launched = case() or time.perf_counter()
    last = _mark(device)
    synchronize(device)
    seconds = time.perf_counter() - start if first is None else first.elapsed_time(last) / 1e3
    return Window(1e3 * seconds / steps, 1e3 * (launched - start) / steps, peak_memory_mib(device))


def _mark(device: torch.device) -> torch.cuda.Event | None:
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def repeated(step: Callable[[], object], steps: int) -> Callable[[], None]:
    def case() -> None:
        for _ in range(steps):
            step()

    return case


def captured(step: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """The step as one replay of a CUDA graph; itself on other devices."""
    if device.type != "cuda":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
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

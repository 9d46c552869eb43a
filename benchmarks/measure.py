"""How everything here is measured: cases take turns, so that other work of the machine slows all of them."""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from kdhelpers.device import synchronize


@dataclass(frozen=True)
class Timing:
    """Seconds of a case in each round, and the memory peak of this process meanwhile (MiB; None where unknown)."""

    seconds: list[float]
    peak_mib: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def ratio_to(self, other: Timing) -> float:
        """Median over the rounds of this case's time by the other's: a slow round slows both."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def interleave(
    cases: dict[str, Callable[[], object]], rounds: int = 5, device: torch.device | str = "cpu"
) -> dict[str, Timing]:
    """Time every case once per round, after a round that warms up and notes the memory peaks.

    device: the clock stops when the device has finished its work; a case `Apart` waits for its own device.
    """
    peaks = {name: peak_memory_mib(case) for name, case in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            synchronize(torch.device(device))
            start = time.perf_counter()
            case()
            synchronize(torch.device(device))
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(seconds[name], peaks[name]) for name in cases}


def peak_memory_mib(case: Callable[[], object]) -> float | None:
    """Run the case; the largest resident set of its process meanwhile, where Linux lets it be reset."""
    if isinstance(case, Apart):
        return case()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        case()
        return None
    case()
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


class Apart:
    """A case in a process of its own, where no other case warms or fragments the memory it works in.

    `prepare(*arguments)`, importable by name, makes the case there; calling this object runs it and waits, also for the
    `device` that it works on.
    """

    def __init__(self, prepare: Callable[..., Callable[[], object]], *arguments, device: str = "cpu"):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare, arguments, device))
        self._process.start()
        theirs.close()  # so that the end of that process ends our waiting
        self._pipe.recv()

    def __call__(self) -> float | None:
        """Run the case once; the largest resident set of its process meanwhile (MiB)."""
        self._pipe.send("run")
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def interleave_apart(
    prepare: Callable[..., Callable[[], object]],
    kinds: list[tuple[str, str]],
    threads: int,
    rounds: int,
    device: str = "cpu",
) -> dict[str, Timing]:
    """`interleave` of "<kind> <precision>" for each pair, `prepare(kind, precision, threads, device)` in its own
    process."""
    cases = {
        f"{kind} {precision}": Apart(prepare, kind, precision, threads, device, device=device)
        for kind, precision in kinds
    }
    try:
        return interleave(cases, rounds)
    finally:
        for case in cases.values():
            case.close()


def _serve(pipe, prepare: Callable[..., Callable[[], object]], arguments: tuple, device: str) -> None:
    prepared = prepare(*arguments)

    def case() -> None:
        prepared()
        synchronize(torch.device(device))

    pipe.send("ready")
    with contextlib.suppress(EOFError):  # the other side has closed: no more rounds
        while pipe.recv():
            pipe.send(peak_memory_mib(case))


def row(
    case: str,
    value: float | Timing,
    unit: str,
    ratio: float | None = None,
    goal: str = "",
    met: bool | None = None,
    scale: float = 1.0,
) -> dict:
    """One line of a table. A Timing gives median, range and memory peak; `scale` turns seconds into `unit`."""
    spread, peak = None, None
    if isinstance(value, Timing):
        spread = [scale * min(value.seconds), scale * max(value.seconds)]
        value, peak = scale * value.median, value.peak_mib
    return {
        "case": case,
        "value": value,
        "unit": unit,
        "spread": spread,
        "peak_mib": peak,
        "ratio": ratio,
        "goal": goal,
        "met": met,
    }


def note(message: str) -> None:
    """Say on stderr what is being measured, as the table only comes at the end."""
    print(message, file=sys.stderr, flush=True)

"""Latency: how long a prediction takes on this machine."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from kdhelpers.deploy.runtime import onnx_runner, torch_runner, torch_threads
from kdhelpers.device import cpu_name

WARM_UP, LEAST = 5, 3  # batches
LONGEST = 1.0  # seconds of a round, after its first LEAST batches
COLUMNS = "network batch threads median_ms low_ms high_ms images_per_second repeats machine".split()


def latency(
    networks: Mapping[str, Path | str | nn.Module],
    image_size: int,
    batches: Sequence[int] = (1, 64),
    threads: Sequence[int | None] = (1, None),
    repeats: int = 30,
    rounds: int = 3,
):
    """A DataFrame with a row per network, batch and number of threads: the time of one batch on the CPU.

    networks: name -> ONNX file, run by onnxruntime, or a network of `Deployable`, run by PyTorch; both take uint8
    images. threads None: all cores. A time is the median of `repeats`, after a warm-up, or of fewer if a batch takes
    long; low_ms and high_ms are the quartiles. The networks take turns in `rounds`, so that another load on the machine
    meets all.
    """
    import pandas

    counts = list(dict.fromkeys(count or cores() for count in threads))
    cases = [(name, batch, count) for batch in batches for count in counts for name in networks]
    times: dict[tuple, list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            name, batch, count = case
            times[case] += timed(networks[name], batch, image_size, count, max(1, round(repeats / rounds)))
    rows = [(*case, *_summary(times[case], case[1]), len(times[case]), cpu_name()) for case in cases]
    return pandas.DataFrame(rows, columns=COLUMNS)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def timed(network: Path | str | nn.Module, batch: int, image_size: int, threads: int, repeats: int) -> list[float]:
    """Milliseconds of each repeat, after a warm-up."""
    images = np.random.RandomState(0).randint(0, 256, (batch, 3, image_size, image_size)).astype(np.uint8)
    if isinstance(network, nn.Module):
        with torch_threads(threads):
            return list(_repeats(torch_runner(network), images, repeats))
    return list(_repeats(onnx_runner(Path(network), threads), images, repeats))


def _repeats(run, images: np.ndarray, repeats: int) -> Iterator[float]:
    run(images)
    begun = time.perf_counter()
    for number in range(WARM_UP + repeats):
        started = time.perf_counter()
        run(images)
        ended = time.perf_counter()
        slow = ended - begun > LONGEST
        if number >= WARM_UP or slow:
            yield 1000 * (ended - started)
        if slow and number >= LEAST:
            break


def _summary(times: list[float], batch: int) -> tuple[float, ...]:
    low, median, high = (float(value) for value in np.percentile(times, [25, 50, 75]))
    return median, low, high, 1000 * batch / median

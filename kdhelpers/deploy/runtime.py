"""Files that run: a function images -> logits of an exported file or of a network, with a number of threads."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

BATCH = 64
Runner = Callable[[np.ndarray], np.ndarray]  # images [N, 3, H, W] -> logits [N, C]


def onnx_runner(model: bytes | Path, threads: int | None = None) -> Runner:
    """onnxruntime on the CPU; threads None: all cores."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # of its builds for Windows
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads:
        options.intra_op_num_threads = threads
    content = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"images": images})[0]


def torch_runner(module: nn.Module) -> Runner:
    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    return run


def torchscript_runner(content: bytes) -> Runner:
    with warnings.catch_warnings(action="ignore"):  # torch 2.10 calls the format deprecated
        return torch_runner(torch.jit.load(io.BytesIO(content)))


def batched(run: Runner, images: np.ndarray) -> np.ndarray:
    """The logits of all images, BATCH at a time."""
    return np.concatenate([run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

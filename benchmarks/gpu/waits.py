"""Where the host waits for the device."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class DataDependent(TorchDispatchMode):
    """Notes each operation whose result the host must read: it would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if _is_data_dependent(function, arguments):
            self.places.append(f"{function.name().removeprefix('aten::')} in {_place()}")
        return function(*arguments, **(keywords or {}))


def _is_data_dependent(function, arguments: tuple) -> bool:
    if torch.Tag.data_dependent_output in function.tags:
        return True
    if function.name().startswith("aten::index.Tensor"):
        return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in arguments[1])
    return torch.Tag.dynamic_output_shape in function.tags


def _place() -> str:
    """The innermost line that is not torch's dispatch itself."""
    frames = [frame for frame in traceback.extract_stack() if "_python_dispatch" not in frame.filename]
    ours = [frame for frame in frames if "/kdhelpers/" in frame.filename.replace("\\", "/")] or frames
    name = ours[-1].filename.replace("\\", "/").split("/kdhelpers/")[-1]
    return f"{name}:{ours[-1].lineno}"


@contextlib.contextmanager
def waits(device: torch.device) -> Iterator[Callable[[], list[str]]]:
    """A function that lists the places until now.

    On an NVIDIA GPU all that CUDA waits for; elsewhere the operations that would wait there.
    """
    if device.type != "cuda":
        with DataDependent() as mode:
            yield lambda: list(mode.places)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lambda: [_warned(w) for w in caught if "synchroniz" in str(w.message)]
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _warned(warning: warnings.WarningMessage) -> str:
    return f"{warning.filename.replace(chr(92), '/').split('/kdhelpers/')[-1]}:{warning.lineno}"

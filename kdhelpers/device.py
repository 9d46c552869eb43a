"""The device: its choice, precision, memory, and transfers to it."""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The given device, else this process's GPU, else Apple's, else the CPU. Raises ValueError for a missing GPU."""
    if device is None:
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if kind == "cuda" else kind
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device = {device}: torch finds no GPU; leave device out to run on the CPU")
    return device


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision for "auto": bf16 if the device multiplies it natively, fp16 on other GPUs, fp32 otherwise."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    return "bf16" if device.type == "cpu" and has_avx512_bf16() else "fp32"


def has_avx512_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively; emulated bf16 is slower than fp32."""
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def autocast(device: torch.device, precision: str):
    """The autocast context of a precision by name; fp32 switches it off."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


class RandomStream:
    """The random numbers of one training: `with` takes its generators as torch's, and afterwards restores the caller's.

    A GPU's generator is exchanged, not copied: a CUDA graph draws from the generator with which it was captured.
    """

    def __init__(self, device: torch.device):
        self._device, self._own, self._generator = device, None, None

    def __enter__(self) -> None:
        self._callers = self._states()
        self._restore(self._own or self._callers)
        if self._device.type == "cuda":
            default = self._default()
            self._callers_generator = default.graphsafe_get_state()
            self._generator = self._generator or default.clone_state()
            default.graphsafe_set_state(self._generator)

    def __exit__(self, *_) -> None:
        self._own = self._states()
        self._restore(self._callers)
        if self._device.type == "cuda":
            self._default().graphsafe_set_state(self._callers_generator)

    @contextlib.contextmanager
    def recoverable(self) -> Iterator[None]:
        """`with` for a step that is captured: a failed capture leaves its generator unusable."""
        state = self._generator.get_state() if self._generator else None
        try:
            with self:
                yield
        except Exception:
            if state is not None:
                self._generator = torch.Generator(self._device)
                self._generator.set_state(state)
            raise

    def _default(self) -> torch.Generator:
        torch.cuda.init()
        return torch.cuda.default_generators[
            torch.cuda.current_device() if self._device.index is None else self._device.index
        ]

    def _states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        return [*states, torch.mps.get_rng_state()] if self._device.type == "mps" else states

    def _restore(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device.type == "mps":
            torch.mps.set_rng_state(states[1])


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed memory: returning and requesting it again costs a CPU step 25,000 page faults."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc: macOS, Windows, musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory: allocated on the GPU since the last reset, else the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def cpu_name() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def free_memory(device: torch.device) -> float:
    """Bytes that data may take on the device: 60 % of a GPU's free memory, half of the machine's memory."""
    if device.type == "cuda":
        return 0.6 * torch.cuda.mem_get_info(device)[0]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return float("inf")  # Windows has no sysconf; its pagefile suffices


@contextlib.contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Run the block with one thread if `wanted`, then restore the number of threads.

    Copying a batch gains little from threads. On two busy cores, waiting for them takes 10 to 60 times as long.
    """
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            torch.set_num_threads(threads)


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Move without making the host wait: through pinned memory if the device is a GPU."""
    if torch.device(device).type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)

"""The device: its choice, precision, memory layout and size, and transfers to it."""

import contextlib
import ctypes
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from kdhelpers.messages import inform

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_inform_once = cache(inform)


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The given device, else this process's GPU, else Apple's, else the CPU. Raises ValueError for a missing GPU.

    A GPU for which the installed torch has no kernels is passed over, and refused if it was given.
    """
    if device is not None:
        return _existing(_parsed(device))
    if not torch.cuda.is_available():
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if lack := _lacks_kernels(own):
        _inform_once(f"device: {lack}; the CPU is used. A torch built for this GPU would use it.")
    return torch.device("cpu") if lack else own


def _parsed(device: str | torch.device) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(f"device = {device}: is not a device; write cpu, cuda, cuda:1 or mps") from None


def _existing(device: torch.device) -> torch.device:
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device = {device}: torch finds no Apple GPU; leave device out")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device = {device}: torch finds no GPU; leave device out to run on the CPU")
    if device.type == "cuda" and (lack := _lacks_kernels(device)):
        remedy = "install a torch built for this GPU, or leave device out to run on the CPU"
        raise ValueError(f"device = {device}: {lack}; {remedy}")
    return device


def _lacks_kernels(device: torch.device) -> str:
    """A complaint if the installed torch has no kernels for the GPU. Raises ValueError for a missing GPU.

    Compiled code (sm_80) runs on its version and later ones of the same major number, PTX (compute_80) on all later
    ones. A ROCm build lists other names and is not checked.
    """
    if (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"device = {device}: the last GPU is cuda:{count - 1}; start one process per GPU")
    built = re.findall(r"(sm|compute)_(\d+)(\d)", " ".join(torch.cuda.get_arch_list()))
    major, minor = torch.cuda.get_device_capability(device)
    versions = ((kind, int(first), int(last)) for kind, first, last in built)
    runs = any((a, b) <= (major, minor) and (kind == "compute" or a == major) for kind, a, b in versions)
    if runs or not built or torch.version.hip:
        return ""
    name = torch.cuda.get_device_name(device)
    return f"torch {torch.__version__} has no kernels for {name} (compute capability {major}.{minor})"


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision for "auto": bf16 or fp16 if the device multiplies it natively, else fp32."""
    if precision != "auto":
        if _emulates(device, precision):
            _inform_once(f"precision = {precision}: {device_name(device)} emulates it, slower than fp32; take auto")
        return precision
    if device.type == "cpu":
        return "bf16" if has_avx512_bf16() else "fp32"
    if device.type != "cuda":
        return "fp32"
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return "bf16"
    # GTX 16xx, of capability 7.5 too, has no tensor cores; its convolutions in fp16 are known for NaN.
    return "fp16" if capability >= (7, 0) and "GTX 16" not in torch.cuda.get_device_name(device) else "fp32"


def _emulates(device: torch.device, precision: str) -> bool:
    if device.type == "cuda" and not torch.version.hip:
        return precision == "bf16" and torch.cuda.get_device_capability(device) < (8, 0)
    if device.type == "cpu" and platform.machine() in ("x86_64", "AMD64"):
        fp16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_fp16_supported()
        return not {"fp32": True, "bf16": has_avx512_bf16(), "fp16": fp16}[precision]
    return False


def has_avx512_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively; emulated bf16 is slower than fp32."""
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout of images and networks: channels_last.

    Apple's GPU takes contiguous_format: in channels_last it computes wrong gradients of BatchNorm (pytorch#175189).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def autocast(device: torch.device, precision: str):
    """The autocast context of a precision by name; fp32 switches it off."""
    enabled = precision != "fp32"  # for Apple's GPU, torch before 2.10 warns of float32 even then
    return torch.autocast(device.type, dtype=DTYPES[precision] if enabled else None, enabled=enabled)


@contextlib.contextmanager
def full_fp32() -> Iterator[None]:
    """Run the block without TF32, by which NVIDIA GPUs since Ampere round the factors of fp32 to 10 bits."""
    with warnings.catch_warnings(action="ignore"):  # torch 2.9 warns of allow_tf32, once
        owners, field, off = _tf32_settings()
        before = [getattr(owner, field) for owner in owners]
        for owner in owners:
            setattr(owner, field, off)
    try:
        yield
    finally:
        for owner, value in zip(owners, before, strict=True):
            setattr(owner, field, value)


def _tf32_settings() -> tuple[list, str, object]:
    """The settings that may allow TF32: (their owners, the field's name, its value for fp32).

    torch has two interfaces and raises where both are used. `allow_tf32` is taken unless the caller used the other.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    with contextlib.suppress(RuntimeError, AttributeError):  # raised by reading allow_tf32, which torch may drop
        if all(getattr(owner, "fp32_precision", "none") == "none" for owner in (torch.backends, cudnn)):
            return [owner for owner in (cudnn, matmul) if owner.allow_tf32], "allow_tf32", False
    return [cudnn.conv, cudnn.rnn, matmul], "fp32_precision", "ieee"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work; the CPU always has."""
    if device.type != "cpu":  # Apple's takes no argument, for it has one device
        torch.get_device_module(device).synchronize(*([device] if device.type == "cuda" else []))


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed memory: returning and requesting it again costs a CPU step 25,000 page faults."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc: macOS, Windows, musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory: allocated on the GPU since the last reset, on Apple's all that its driver keeps for this process;
    else the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()} GPU" if device.type == "mps" else cpu_name()


@cache
def cpu_name() -> str:
    """The processor's name, such as Apple M2."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def free_memory(device: torch.device) -> float:
    """Bytes that data may take on the device: 60 % of a GPU's free memory, half of the machine's memory."""
    if device.type == "cuda":
        return 0.6 * torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":  # the machine's memory, of which Metal recommends a part
        return 0.6 * max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
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
    """Move to the device; to an NVIDIA GPU through pinned memory, without making the host wait.

    Elsewhere the host waits: Apple's copy would go on to read memory that may be freed by then (pytorch#189690).
    """
    cuda = torch.device(device).type == "cuda"
    if cuda and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=cuda)

"""The device without a GPU: faked capabilities, patched runtimes, and torch's own settings."""

import platform
from contextlib import contextmanager, suppress

import pytest
import torch

from kdhelpers import device as module
from kdhelpers.device import (
    autocast,
    device_name,
    free_memory,
    full_fp32,
    memory_format,
    peak_memory_mib,
    pick_device,
    resolve_precision,
    synchronize,
    to_device,
)

CPU, GPU, APPLE = (torch.device(kind) for kind in ("cpu", "cuda:0", "mps"))
WHEEL = "sm_75 sm_80 sm_86 sm_90a sm_100 sm_120 compute_120".split()
cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def informs_anew(monkeypatch):
    module._inform_once.cache_clear()
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.fixture
def gpu(monkeypatch):
    """A function that pretends a GPU of this name and capability."""

    def pretend(name, capability, built=WHEEL, hip=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
        monkeypatch.setattr(torch.version, "hip", hip)

    return pretend


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device = cuda: torch finds no GPU; leave device out"):
        pick_device("cuda")


@pytest.mark.parametrize(
    ("device", "complaint"), [("gpu", "is not a device; write cpu"), ("mps", "finds no Apple GPU")]
)
def test_a_device_that_does_not_exist_is_refused(monkeypatch, device, complaint):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device = {device}: .*{complaint}"):
        pick_device(device)


@pytest.mark.parametrize(
    ("name", "capability"), [("Tesla P100", (6, 0)), ("Tesla V100", (7, 0)), ("GTX 1080", (6, 1)), ("Later", (13, 0))]
)
def test_a_gpu_without_kernels_leaves_the_cpu_and_is_refused_if_given(gpu, capsys, name, capability):
    gpu(name, capability, WHEEL[:-1])
    lack = f"has no kernels for {name} (compute capability {capability[0]}.{capability[1]})"
    assert pick_device() == pick_device() == CPU
    (line,) = capsys.readouterr().err.splitlines()  # once, on one line
    assert line.startswith("device: torch ")
    assert f"{lack}; the CPU is used" in line
    with pytest.raises(ValueError) as refused:
        pick_device("cuda")
    assert str(refused.value).startswith("device = cuda: torch ")
    assert f"{lack}; install a torch built for this GPU, or leave device out" in str(refused.value)


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((7, 5), WHEEL),
        ((8, 9), WHEEL),  # compiled for 8.0 and 8.6
        ((8, 7), ["sm_80"]),
        ((9, 0), WHEEL),
        ((12, 1), WHEEL),
        ((13, 0), WHEEL),  # PTX of 12.0
        ((6, 0), ["compute_50"]),
        ((6, 0), []),  # a torch that does not list what it was built for
    ],
)
def test_a_gpu_with_kernels_is_taken_in_silence(gpu, capsys, monkeypatch, capability, built):
    gpu("GPU", capability, built)
    assert pick_device() == pick_device("cuda:0") == GPU
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device() == torch.device("cuda:1")
    assert capsys.readouterr() == ("", "")


def test_a_later_minor_version_does_not_run_on_an_earlier_one(gpu):
    gpu("A100", (8, 0), ["sm_86", "compute_90"])
    assert pick_device() == CPU


def test_rocm_is_never_refused(gpu):
    gpu("AMD Radeon", (10, 3), ["gfx90a", "gfx1100"], hip="6.4")
    assert pick_device() == GPU
    assert resolve_precision("bf16", GPU) == "bf16"


def test_more_processes_than_gpus_are_refused(gpu, monkeypatch):
    gpu("H100", (9, 0))
    monkeypatch.setenv("LOCAL_RANK", "2")
    for given in (None, "cuda:2"):
        with pytest.raises(ValueError, match="device = cuda:2: the last GPU is cuda:1; start one process per GPU"):
            pick_device(given)


def test_apples_gpu_is_taken_where_there_is_no_other(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == APPLE


@pytest.mark.parametrize(
    ("name", "capability", "precision"),
    [
        ("GTX 1080", (6, 1), "fp32"),
        ("Tesla P100", (6, 0), "fp32"),
        ("Tesla V100", (7, 0), "fp16"),
        ("Tesla T4", (7, 5), "fp16"),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5), "fp32"),
        ("NVIDIA GeForce RTX 2080", (7, 5), "fp16"),
        ("NVIDIA A100", (8, 0), "bf16"),
        ("NVIDIA H200", (9, 0), "bf16"),
    ],
)
def test_auto_is_the_half_type_that_the_gpu_multiplies_natively(gpu, capsys, name, capability, precision):
    gpu(name, capability)
    assert resolve_precision("auto", GPU) == precision
    assert capsys.readouterr() == ("", "")


def test_auto_elsewhere(monkeypatch):
    assert resolve_precision("auto", APPLE) == "fp32"
    for native, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(module, "has_avx512_bf16", lambda native=native: native)
        assert resolve_precision("auto", CPU) == precision


def test_emulated_bf16_is_taken_and_said_to_be_slow_once(gpu, capsys):
    gpu("Tesla T4", (7, 5))
    assert resolve_precision("bf16", GPU) == resolve_precision("bf16", GPU) == "bf16"
    assert capsys.readouterr().err == "precision = bf16: Tesla T4 emulates it, slower than fp32; take auto\n"
    gpu("NVIDIA L4", (8, 9))
    for precision in ("bf16", "fp16", "fp32"):
        assert resolve_precision(precision, GPU) == precision
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("precision", "native"), [("bf16", "has_avx512_bf16"), ("fp16", None)])
def test_half_types_that_the_cpu_emulates_are_said_to_be_slow(monkeypatch, capsys, precision, native):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module, "has_avx512_bf16", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resolve_precision(precision, CPU) == precision
    assert resolve_precision("fp32", CPU) == "fp32"
    assert capsys.readouterr().err.count(f"precision = {precision}: ") == 1
    module._inform_once.cache_clear()
    monkeypatch.setattr(platform, "machine", lambda: "arm64")  # torch does not say what such a CPU has
    resolve_precision(precision, CPU)
    assert capsys.readouterr().err == ""


def test_apples_layout_is_contiguous():
    assert memory_format(APPLE) == torch.contiguous_format
    assert memory_format(CPU) == memory_format(GPU) == torch.channels_last


def test_autocast_is_given_no_type_that_it_refuses(monkeypatch):
    given = []
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype, enabled: given.append((kind, dtype, enabled)))
    for device, precision in ((APPLE, "fp32"), (APPLE, "fp16"), (GPU, "bf16")):
        autocast(device, precision)
    assert given == [("mps", None, False), ("mps", torch.float16, True), ("cuda", torch.bfloat16, True)]


def test_only_a_copy_to_an_nvidia_gpu_goes_on_while_the_host_does(monkeypatch):
    copies = []

    class Values:
        device = CPU

        def pin_memory(self):
            copies.append("pinned")
            return self

        def to(self, device, non_blocking=False):
            copies.append(non_blocking)

    for device in (APPLE, CPU, GPU, "cuda"):
        to_device(Values(), device)
    assert copies == [False, False, "pinned", True, "pinned", True]


def test_every_accelerator_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for device in (CPU, APPLE, GPU):
        synchronize(device)
    assert waited == ["mps", GPU]


def test_apples_memory_and_name(monkeypatch):
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 3 * 2**20)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 13 * 2**20)
    monkeypatch.setattr(module, "cpu_name", lambda: "Apple M2")
    assert peak_memory_mib(APPLE) == 3
    assert free_memory(APPLE) == pytest.approx(0.6 * 10 * 2**20)
    assert device_name(APPLE) == "Apple M2 GPU"


def test_macos_names_its_chip(monkeypatch):
    class Answer:
        stdout = "Apple M2\n"

    monkeypatch.setattr(module.sys, "platform", "darwin")
    monkeypatch.setattr(module.subprocess, "run", lambda command, **_: Answer() if command[0] == "sysctl" else None)
    assert module.cpu_name.__wrapped__() == "Apple M2"


@contextmanager
def settings(*pairs):
    """torch's TF32 settings as a caller may set them, and the defaults afterwards, by which both interfaces agree."""
    for owner, field, value in pairs:
        setattr(owner, field, value)
    try:
        yield
    finally:
        torch.backends.fp32_precision = cudnn.fp32_precision = matmul.fp32_precision = "none"
        cudnn.allow_tf32, matmul.allow_tf32 = True, False


def read(owner, field):
    try:
        return getattr(owner, field)
    except RuntimeError:
        return "mixed"


def operations():
    return [cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, matmul.fp32_precision]


CALLERS = {
    "defaults": [],
    "all on": [(cudnn, "allow_tf32", True), (matmul, "allow_tf32", True)],
    "off": [(cudnn, "allow_tf32", False)],
    "new for one": [(cudnn.conv, "fp32_precision", "ieee")],
    "new for each": [(cudnn.conv, "fp32_precision", "tf32"), (matmul, "fp32_precision", "tf32")],
    "new for cudnn": [(cudnn, "fp32_precision", "tf32")],
    "new for everything": [(torch.backends, "fp32_precision", "tf32")],
}


@pytest.mark.skipif(not hasattr(cudnn, "conv"), reason="torch before 2.9 has one interface")
@pytest.mark.parametrize("caller", CALLERS)
def test_full_fp32_is_without_tf32_and_leaves_the_callers_settings(caller):
    with settings(*CALLERS[caller]):
        flags = [(cudnn, "allow_tf32"), (matmul, "allow_tf32")]
        before = [read(*flag) for flag in flags], operations()
        with suppress(ZeroDivisionError), full_fp32():
            assert "tf32" not in operations()
            raise ZeroDivisionError
        assert ([read(*flag) for flag in flags], operations()[:2]) == (before[0], before[1][:2])
        assert (operations()[2] == "tf32") == (before[1][2] == "tf32")
    assert cudnn.allow_tf32
    assert not matmul.allow_tf32

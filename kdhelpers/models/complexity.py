"""The size of a network: parameters and multiply-accumulates."""

import copy

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, a shared one counted once; buffers (BatchNorm statistics) do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, image_size: int) -> int:
    """Multiply-accumulates for one image [3, image_size, image_size]: convolutions, linear layers, attention.

    A product of two matrices counts wherever it is computed; sums, norms and activations do not.
    """
    probe = copy.deepcopy(model).eval()
    weight = next(probe.parameters())
    images = torch.zeros(1, 3, image_size, image_size, device=weight.device, dtype=weight.dtype)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused kernels of attention are not counted
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            probe(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2

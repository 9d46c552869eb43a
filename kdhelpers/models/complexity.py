"""The size of a network: parameters and multiply-accumulates."""

import copy

import torch
from torch import Tensor, nn


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, a shared one counted once; buffers (BatchNorm statistics) do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, image_size: int) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image [3, image_size, image_size]."""
    probe = copy.deepcopy(model).eval()
    total = 0

    def add(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()  # weight [out, in / groups, kh, kw] or [out, in]

    for module in probe.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    weight = next(probe.parameters())
    with torch.no_grad():
        probe(torch.zeros(1, 3, image_size, image_size, device=weight.device, dtype=weight.dtype))
    return total

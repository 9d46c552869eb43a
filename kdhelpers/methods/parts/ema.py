"""Exponential moving averages of parameters."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def ema_update(averages: Iterable[Tensor], sources: Iterable[Tensor], momentum: float) -> None:
    """average <- momentum average + (1 - momentum) source, in place, in one fused pass.

    Momentum 0 copies, 1 changes no bit. Give `parameters()`: buffers, such as BatchNorm's statistics, are not averaged.
    """
    torch._foreach_lerp_(list(averages), list(sources), 1 - momentum)

"""Inner products of vectors in full precision: similarities of images or of channels."""

import torch
from torch import Tensor

from kdhelpers.methods.parts.tensors import full_precision


def inner_products(first: Tensor, second: Tensor) -> Tensor:
    """[..., n, d] and [..., m, d] -> [..., n, m]: every row of `first` with every row of `second`.

    float32 (float64 for float64 input), under autocast, too: it would multiply in half precision.
    """
    with torch.autocast(first.device.type, enabled=False):
        return full_precision(first) @ full_precision(second).mT

"""Precision and shapes of the tensors that losses take."""

import re
from functools import cache

import torch.nn.functional as F
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """float32 for half types; float32 and float64 unchanged. Losses that exponentiate compute in it."""
    return x.float() if x.element_size() < 4 else x


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)_y, mean over the batch, in full precision; a scalar. logits [B, C], labels int64 [B]."""
    return F.cross_entropy(full_precision(logits), labels)


def check_shapes(layout: str, *tensors: Tensor | None) -> None:
    """Raise ValueError with all shapes unless they fit `layout`; None fits every shape.

    layout: names and sizes in the order of `tensors`, then a remedy: "logits [B, C], labels [B]; pass one label an
    image". A letter stands for one size everywhere.
    """
    named = [(*entry, tensor) for entry, tensor in zip(_parse(layout), tensors, strict=True) if tensor is not None]
    sizes: dict[str, int] = {}
    for _, axes, tensor in named:
        for axis, size in zip(axes, tensor.shape, strict=False):
            sizes.setdefault(axis, int(axis) if axis.isdigit() else size)
        if tensor.shape != tuple(sizes.get(axis) for axis in axes):
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, _, tensor in named)
            raise ValueError(f"{shapes}: must be {layout}")


@cache
def _parse(layout: str) -> list[tuple[str, list[str]]]:
    return [(name, axes.split(", ")) for name, axes in re.findall(r"(\w+) \[(.*?)\]", layout)]

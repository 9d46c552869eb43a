"""Gathering and averaging over the ranks of a distributed training; a single process gets its own values back."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather(values: Tensor) -> Tensor:
    """[B, ...] of every rank: [world B, ...], in the order of the whole batch, whose places the ranks take in turn.

    A loss of the gathered batch is equal on all ranks, so its gradient, averaged by DistributedDataParallel, is the
    global batch's.
    """
    return _Gather.apply(values) if is_distributed() else values


class _Gather(torch.autograd.Function):
    """With the gradient of the losses of all ranks; `dist.all_gather` has none."""

    @staticmethod
    def forward(ctx, values):
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total[dist.get_rank() :: dist.get_world_size()]


@torch.no_grad()
def mean_over_ranks(value: Tensor) -> Tensor:
    if not is_distributed():
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()

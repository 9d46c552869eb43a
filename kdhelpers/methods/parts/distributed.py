"""Gathering and averaging over the ranks of a distributed training; a single process gets its own values back."""

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather(values: Tensor) -> Tensor:
    """[B, ...] of every rank, in rank order: [world B, ...]. A loss of the gathered batch is equal on all ranks, so its
    gradient, averaged by DistributedDataParallel, is the global batch's."""
    if not is_distributed():
        return values
    from torch.distributed.nn.functional import all_gather  # with a gradient, unlike dist.all_gather

    return torch.cat(all_gather(values.contiguous()))


@torch.no_grad()
def mean_over_ranks(value: Tensor) -> Tensor:
    if not is_distributed():
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()

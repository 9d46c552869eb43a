"""What contrastive methods share between the processes of a distributed training; nothing happens in a single one."""

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather(values: Tensor) -> Tensor:
    """[B, ...] of every rank, in rank order: [world B, ...]. A loss of the gathered batch, equal on all ranks, gets the
    gradient of the global batch once DistributedDataParallel has averaged."""
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

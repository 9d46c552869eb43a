"""A first-in, first-out queue of the latest keys of a contrastive loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.methods.parts.distributed import gather


class KeyQueue(nn.Module):
    """`keys`, float32 [size, dim] with unit rows, random at first; `oldest`, the row to overwrite next."""

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))  # on the device: nothing waits for it

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Write the keys [B, dim] of all ranks over the oldest rows, in place; of more than `size` the last stay."""
        keys, size = gather(keys.to(self.keys.dtype)), len(self.keys)
        latest = keys[-size:]  # writes no row twice: a GPU does not keep the order
        rows = torch.arange(len(keys) - len(latest), len(keys), device=keys.device) + self.oldest
        self.keys.index_copy_(0, rows % size, latest)
        self.oldest.add_(len(keys)).remainder_(size)

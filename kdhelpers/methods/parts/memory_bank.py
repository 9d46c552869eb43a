"""Memory banks with a row of unit length per training image and network, and draws of negatives from them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.methods.parts.distributed import gather


def random_integers(shape: torch.Size, device: torch.device) -> Tensor:
    """Uniform integers from 0 up to a bound far above any number of images. Apple's GPU draws 32 bits."""
    bound = 2**62 if device.type in ("cpu", "cuda") else 2**31 - 1
    return torch.randint(bound, shape, device=device)


class MemoryBank(nn.Module):
    """Banks `student` and `teacher`, float32 [N, dim], rows uniform in +-1/sqrt(dim/3) at first (Tian et al. 2020).

    labels: int64 [N]. `negatives` is K, at most the smallest number of images outside a class. Raises ValueError if all
    images are of one class, which leaves no negatives.
    """

    def __init__(self, labels: Tensor, num_classes: int, dim: int, negatives: int):
        super().__init__()
        bound = (dim / 3) ** -0.5
        self.register_buffer("student", torch.empty(len(labels), dim).uniform_(-bound, bound))
        self.register_buffer("teacher", torch.empty(len(labels), dim).uniform_(-bound, bound))
        self._sort_by_class(labels, num_classes, negatives)

    def _sort_by_class(self, labels: Tensor, num_classes: int, negatives: int) -> None:
        """Order the images by class: images of other classes than c lie outside c's block."""
        counts = torch.bincount(labels, minlength=num_classes)
        if counts.max() == len(labels):
            raise ValueError("labels: all training images are of one class; CRD needs negatives of other classes")
        others, which = (len(labels) - counts).unique(return_inverse=True)
        self.pool_sizes = others.tolist()  # one size for a balanced data set
        self.negatives = min(negatives, self.pool_sizes[0])
        sequences = others + self.negatives
        index_tables = {
            "order": labels.argsort(stable=True),
            "count": counts,
            "first": counts.cumsum(0) - counts,
            "others": len(labels) - counts,
            "sequence": (sequences.cumsum(0) - sequences)[which],
        }
        for name, values in index_tables.items():  # computed from the labels, so not saved in a checkpoint
            self.register_buffer(f"_{name}", values, persistent=False)

    def other_classes(self, labels: Tensor) -> Tensor:
        """[B, K]: for each image K different rows of other classes, all equally likely.

        The batch shares one shuffle of each pool; every image reads K successive entries from a random place. That is
        two passes over [B, K]; a shuffle per image would cost as much as the loss. Each class size costs one shuffle.
        """
        shuffled = []
        for size in self.pool_sizes:
            shuffle = torch.randperm(size, device=labels.device)
            shuffled += [shuffle, shuffle[: self.negatives]]  # reading wraps around
        others = self._others[labels]
        start = self._sequence[labels] + random_integers(others.shape, labels.device) % others
        places = torch.cat(shuffled).unfold(0, self.negatives, 1)[start]
        after = places >= self._first[labels, None]  # skip the class's own block
        return self._order[places.add_(after * self._count[labels, None])]

    @torch.no_grad()
    def update(self, index: Tensor, student: Tensor, teacher: Tensor, momentum: float) -> None:
        """v <- normalise(momentum v + (1 - momentum) g) for the rows `index` [B] of all ranks, in place."""
        index = gather(index)
        for bank, embedding in ((self.student, student), (self.teacher, teacher)):
            moved = torch.lerp(gather(embedding.detach().to(bank.dtype)), bank[index], momentum)
            bank.index_copy_(0, index, F.normalize(moved, dim=1))

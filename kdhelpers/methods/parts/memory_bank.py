"""A row of unit length per training image and network, and the draws of positives and negatives among them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.methods.parts.distributed import gather


class MemoryBank(nn.Module):
    """Banks `student` and `teacher`, float32 [N, dim], rows uniform in +-1/sqrt(dim/3) at first (Tian et al. 2020).

    labels: int64 [N]. `negatives` is K, or all images of other classes where some class has fewer of them. Raises
    ValueError where all images are of one class: there is no negative then.
    """

    def __init__(self, labels: Tensor, num_classes: int, dim: int, negatives: int):
        super().__init__()
        bound = (dim / 3) ** -0.5
        self.register_buffer("student", torch.empty(len(labels), dim).uniform_(-bound, bound))
        self.register_buffer("teacher", torch.empty(len(labels), dim).uniform_(-bound, bound))
        self._keep_classes(labels, num_classes, negatives)

    def _keep_classes(self, labels: Tensor, num_classes: int, negatives: int) -> None:
        """The images in the order of their classes: what is not of class c is what lies outside c's block."""
        counts = torch.bincount(labels, minlength=num_classes)
        if counts.max() == len(labels):
            raise ValueError("labels: all training images are of one class; CRD needs negatives of other classes")
        others, which = (len(labels) - counts).unique(return_inverse=True)
        self.pool_sizes = others.tolist()  # on a balanced data set there is one
        self.negatives = min(negatives, self.pool_sizes[0])
        sequences = others + self.negatives
        facts = {
            "order": labels.argsort(stable=True),
            "count": counts,
            "first": counts.cumsum(0) - counts,
            "others": len(labels) - counts,
            "sequence": (sequences.cumsum(0) - sequences)[which],
        }
        for name, values in facts.items():  # they follow from the data, a checkpoint need not hold them
            self.register_buffer(f"_{name}", values, persistent=False)

    def other_classes(self, labels: Tensor) -> Tensor:
        """[B, K]: for each image K different rows of other classes, each equally likely.

        One shuffle of each pool serves the batch; every image reads K of it in turn from a random place. That is two
        passes over [B, K], where a shuffle per image would cost as much as the loss itself; classes of unequal sizes
        have pools of unequal sizes, and cost a shuffle each.
        """
        shuffled = []
        for size in self.pool_sizes:
            shuffle = torch.randperm(size, device=labels.device)
            shuffled += [shuffle, shuffle[: self.negatives]]  # reading goes on at the beginning
        start = self._sequence[labels] + _uniform(self._others[labels])
        places = torch.cat(shuffled).unfold(0, self.negatives, 1)[start]
        behind = places >= self._first[labels, None]  # the class's own block is stepped over
        return self._order[places.add_(behind * self._count[labels, None])]

    def same_class(self, labels: Tensor) -> Tensor:
        """[B]: for each image a row of its class, each equally likely, its own included."""
        return self._order[self._first[labels] + _uniform(self._count[labels])]

    @torch.no_grad()
    def update(self, index: Tensor, student: Tensor, teacher: Tensor, momentum: float) -> None:
        """v <- normalise(momentum v + (1 - momentum) g) for the rows `index` [B] of all ranks, in place."""
        index = gather(index)
        for bank, embedding in ((self.student, student), (self.teacher, teacher)):
            moved = torch.lerp(gather(embedding.detach().float()), bank[index], momentum)
            bank.index_copy_(0, index, F.normalize(moved, dim=1))


def _uniform(count: Tensor) -> Tensor:
    """For each entry a whole number in 0..count-1, without a look at the host."""
    return torch.randint(2**62, count.shape, device=count.device) % count  # float64 is not on every device

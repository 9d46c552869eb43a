"""Placebos: a student's teacher whose outputs no longer belong to the images. What is left of a gain is not knowledge.

shuffled  The outputs are permuted among the images of a batch, and no image keeps its own. The student meets the same
          targets, confident and with the teacher's similarities of classes, for other images.
mean      Each image gets the batch's mean: the log of the mean prediction as logits, the mean embedding, the mean maps.

The mean is of the batch. That of the data set would need a pass of the teacher before the training, and would not fit
the augmented views. An image still has 1 / B of its batch's mean: 1.6 % of it at 64 images.

The weights of the teacher's classifier, which some methods use, stay as they are. Under DDP each process shuffles and
averages its own images.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.methods.parts.tensors import full_precision
from kdhelpers.models import Outputs


class Placebo:
    """The teacher of one step. Outputs for equally many images have one permutation, so several views agree."""

    def __init__(self, teacher: Callable[..., Outputs], kind: str):
        self._teacher, self._kind = teacher, kind
        self._partners: dict[int, Tensor] = {}  # by the number of images

    def __call__(self, view: Tensor, stop_at: str | None = None) -> Outputs:
        outputs = self._teacher(view, stop_at=stop_at)
        if len(view) < 2:
            raise ValueError(f"placebo = {self._kind}: a batch of one image holds no other; raise batch_size")
        if self._kind == "mean":
            return _each(_batch_mean, outputs)._replace(logits=mean_prediction(outputs.logits))
        return _each(lambda value: value[self._order(view)], outputs)

    def _order(self, view: Tensor) -> Tensor:
        if len(view) not in self._partners:
            self._partners[len(view)] = partners(len(view), view.device)
        return self._partners[len(view)]


def partners(count: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 [count]: a random permutation without fixed points; each image's partner is any other with equal chance.

    All images stand in a random circle, and each gets the next one. So nothing is drawn again, as trying permutations
    until one has no fixed point would need, and the host never waits for the device. `count` is 2 or more.
    """
    circle = torch.rand(count, device=device).argsort()
    return torch.empty_like(circle).scatter_(0, circle, circle.roll(1))


def mean_prediction(logits: Tensor | None) -> Tensor | None:
    """The log of the batch's mean softmax, for each image: [B, C] of [B, C], in the dtype of the logits."""
    if logits is None:
        return None
    mean = F.log_softmax(full_precision(logits), dim=1).logsumexp(0) - math.log(len(logits))
    return mean.to(logits.dtype).expand_as(logits)


def _batch_mean(value: Tensor) -> Tensor:
    return value.mean(0, keepdim=True).expand_as(value)


def _each(change: Callable[[Tensor], Tensor], outputs: Outputs) -> Outputs:
    """The outputs with every tensor changed; a mapping of maps keeps its type."""

    def changed(part):
        if isinstance(part, dict):
            return type(part)({name: change(value) for name, value in part.items()})
        return None if part is None else change(part)

    return Outputs(*map(changed, outputs))

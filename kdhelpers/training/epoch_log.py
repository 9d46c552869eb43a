"""The loss terms of an epoch's steps, kept on the device and read once."""

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor

HISTORY_COLUMNS = {
    "epoch",
    "loss",
    "lr",
    "seconds",
    "temperature",
    "skipped_steps",
}  # a loss term with such a name would overwrite it


def total(method: str, terms: dict[str, Tensor]) -> Tensor:
    """The sum of a method's loss terms. Raises TypeError unless they are scalars by name that depend on the student."""
    forward = f"METHODS[{method!r}].forward"
    if not isinstance(terms, dict) or not terms:
        raise TypeError(f"{forward}: returned {type(terms).__name__}; return loss terms by name: {{'ce': ...}}")
    if taken := HISTORY_COLUMNS & set(terms):
        raise TypeError(f"{forward}: a loss term has the name {min(taken)!r} of another column; name it otherwise")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.ndim:
            kind = f"a tensor {tuple(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
            raise TypeError(f"{forward}: the loss term {name!r} is {kind}; return a scalar tensor, such as its .mean()")
    loss = reduce(torch.add, terms.values())
    if not loss.requires_grad:
        raise TypeError(f"{forward}: no loss term depends on the student; compute one from student(view)")
    return loss


def faulty_term(terms: dict[str, Tensor], parameters: Sequence[Tensor]) -> str:
    """The first loss term whose gradient is not finite; "" if the gradient of their sum is finite."""

    def is_finite(loss: Tensor) -> bool:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return all(value.isfinite().all() for value in gradients if value is not None)

    if is_finite(reduce(torch.add, terms.values())):
        return ""
    learned = {name: term for name, term in terms.items() if term.requires_grad}
    return next((name for name, term in learned.items() if not is_finite(term)), "the sum of all terms")


class EpochLog:
    """Loss terms and hits of each step, [steps, terms + 1] on the device, and the number of its images, on the host.

    The place of the next row is a tensor, too: a captured step writes another row each time that it is replayed.
    """

    def __init__(self, steps: int):
        self._steps, self._names, self.sizes = steps, [], []
        self._skipped: Tensor | None = None  # number of steps that fp16's scaler left out, on the device

    @torch.no_grad()
    def add(self, terms: dict[str, Tensor], hits: Tensor) -> None:
        """The device's part of a step; the host appends the step's images to `sizes`."""
        row = torch.stack([*(term.float() for term in terms.values()), hits.float()])
        if not self._names:
            self._names, self._rows = list(terms), row.new_empty(self._steps, len(row))
            self._place = torch.zeros(1, dtype=torch.int64, device=row.device)
        self._rows.index_copy_(0, self._place, row[None])
        self._place.add_(1)

    @torch.no_grad()
    def add_skipped(self, found_inf: Iterable[Tensor]) -> None:
        """Count the step as skipped if a gradient was not finite: each tensor of `found_inf` is 1 then, else 0."""
        skipped = reduce(torch.maximum, found_inf)
        if self._skipped is None:
            self._skipped = torch.zeros_like(skipped)
        self._skipped.add_(skipped)

    def skipped(self) -> int | None:
        """How many steps were skipped; None without a scaler. Here the host waits for the device."""
        return None if self._skipped is None else int(self._skipped.item())

    def read(self, epoch: int, remedy: str) -> dict[str, float]:
        """Mean loss terms and accuracy over the epoch's images on all ranks. Here the host waits for the device.

        Raises FloatingPointError, with the epoch and the name of the term, for a loss that is not finite on any rank.
        """
        log, sizes = self._rows.cpu().double(), torch.tensor(self.sizes, dtype=torch.float64)
        terms, hits = log[: len(sizes), :-1], log[: len(sizes), -1]
        bad = (~terms.isfinite()).nonzero().tolist()
        sums = [(terms * sizes[:, None]).sum(0), hits.sum()[None] * 100, torch.tensor([len(bad)]), sizes.sum()[None]]
        *totals, all_bad, images = self._over_ranks(torch.cat(sums)).tolist()
        if bad:
            step, term = bad[0]  # the first one spoils the later steps and the other terms
            value = f"epoch {epoch}, step {step + 1}: loss term {self._names[term]} is {terms[step, term].item()}"
            raise FloatingPointError(f"{value}; {remedy}")
        if all_bad:
            raise FloatingPointError(f"epoch {epoch}: a loss term of another process is not finite; {remedy}")
        *means, accuracy = (value / images for value in totals)
        return {"loss": sum(means), **dict(zip(self._names, means, strict=True)), "train_top1_pct": accuracy}

    def _over_ranks(self, totals: Tensor) -> Tensor:
        if dist.is_initialized() and dist.get_world_size() > 1:
            totals = totals.to(self._rows.device)
            dist.all_reduce(totals)
        return totals

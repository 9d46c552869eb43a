"""Optimisers and learning-rate schedules by name.

A schedule is a pure function of training time, so that a resumed run needs no scheduler state.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from kdhelpers.nearest import check_known

if TYPE_CHECKING:  # torch itself waits until something is trained: `--help` reads this module too
    from torch import nn

LION_RULE = "Lion: lr 3-10x below and weight decay 3-10x above AdamW's (Chen et al. 2023)"


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} = {value}: must lie in [{low}, {high}]")


def sgd(parameters, lr: float, weight_decay: float, *, momentum: float = 0.9, nesterov: bool = False):
    """Stochastic gradient descent; with nesterov=True, Nesterov's momentum."""
    import torch

    optimizer = torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)
    if momentum:  # zeros act like torch's own buffers, which a first stage would make for some layers alone;
        for parameter in parameters:  # the fused kernel refuses such a mixture
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def adamw(parameters, lr: float, weight_decay: float, *, beta1: float = 0.9, beta2: float = 0.999):
    """AdamW (Loshchilov & Hutter 2019): weight decay apart from the gradient."""
    import torch

    # Without `capturable`, which changes nothing else in the fused kernel, a CUDA graph refuses to capture a step.
    options = {"weight_decay": weight_decay, "fused": True, "capturable": True}
    return torch.optim.AdamW(parameters, lr, (beta1, beta2), **options)


def lion(parameters, lr: float, weight_decay: float, *, beta1: float = 0.9, beta2: float = 0.99):
    """Lion (Chen et al. 2023): steps of exactly lr, by the sign of a momentum."""
    from kdhelpers.training.lion import Lion

    return Lion(parameters, lr, (beta1, beta2), weight_decay)


OPTIMIZERS: dict[str, Callable] = {"sgd": sgd, "adamw": adamw, "lion": lion}
# At batch 64. Lion's lr is a fifth of AdamW's and its decay five times as large, within LION_RULE. Both rates were the
# best, and the largest, of three on held-out images of Imagenette (4 epochs, no records kept): larger may be better.
DEFAULT_LR_AND_DECAY = {"sgd": (0.05, 5e-4), "adamw": (3e-3, 0.02), "lion": (6e-4, 0.1)}


def starting_point(name: str, lr: float = 0, weight_decay: float = -1) -> tuple[float, float]:
    """(lr, weight decay) as given; lr 0 and a negative weight decay mean the defaults of the optimiser.

    Strings are coerced, since YAML reads 1e-2 as a string. Raises ValueError for an unknown optimiser and for a value
    that is not a number.
    """
    check_known("optimizer", name, OPTIMIZERS)
    first_lr, first_decay = DEFAULT_LR_AND_DECAY[name]
    lr, weight_decay = _number("lr", lr), _number("weight_decay", weight_decay)
    return lr or first_lr, first_decay if weight_decay < 0 else weight_decay


def _number(name: str, value: float | str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {value!r}: is not a number; write one such as 0.01") from None


def described() -> list[tuple[str, str]]:
    """(name, description and where to begin) of every optimiser."""
    rows = ((name, inspect.getdoc(make), *DEFAULT_LR_AND_DECAY[name]) for name, make in OPTIMIZERS.items())
    return [(name, f"{text} Begin with lr {lr:g}, weight decay {decay:g}") for name, text, lr, decay in rows]


def check_optimizer_options(options: dict) -> None:
    """ValueError for a momentum or beta outside [0, 1), and for Nesterov's momentum without momentum.

    Done here, not by building an optimiser, since the first one that torch builds takes a second of imports.
    """
    for name in ("momentum", "beta1", "beta2"):
        if not 0 <= options.get(name, 0) < 1:
            raise ValueError(f"{name} = {options[name]}: must lie in [0, 1)")
    if options.get("nesterov") and not options["momentum"]:
        raise ValueError("nesterov = True: needs a momentum above 0")


def build_optimizer(name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, options: dict):
    """The named optimiser over the parameters that are trained."""
    return OPTIMIZERS[name]([p for p in parameters if p.requires_grad], lr, weight_decay, **options)


def constant(epoch: float, epochs: int) -> float:
    """1 throughout."""
    return 1.0


def cosine(epoch: float, epochs: int, *, final: float = 0.0) -> float:
    """Half a cosine from 1 to `final`."""
    _within("final", final, 0, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def multistep(epoch: float, epochs: int, *, milestones: Sequence[float] = (), gamma: float = 0.1) -> float:
    """Times gamma at each milestone, in epochs; without any, at 62.5, 75 and 87.5 % (150, 180, 210 of 240)."""
    _within("gamma", gamma, 0, 1)
    if list(milestones) != sorted(milestones) or any(m <= 0 for m in milestones):
        raise ValueError(f"milestones = {list(milestones)}: must be epochs in rising order")
    return gamma ** sum(epoch >= m for m in milestones or (0.625 * epochs, 0.75 * epochs, 0.875 * epochs))


SCHEDULES: dict[str, Callable] = {"cosine": cosine, "multistep": multistep, "constant": constant}


def learning_rate(
    schedule: str, options: dict, lr: float, epoch: float, epochs: int, warmup_epochs: float = 0, step: float = 0
) -> float:
    """The learning rate at `epoch` (a float counted from 0) of `epochs`; it rises linearly over the warm-up."""
    warmup = min(1.0, (epoch + step) / warmup_epochs) if warmup_epochs else 1.0
    return lr * warmup * SCHEDULES[schedule](epoch, epochs, **options)

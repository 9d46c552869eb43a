"""The target of a loss on logits: the prediction at its minimum, the pull on each class; a picture."""

from collections.abc import Callable

import torch
from torch import Tensor

from kdhelpers.display.style import new_figure, styled

Losses = dict[str, Callable[[Tensor], Tensor]]  # title -> scalar loss of the student's logits, float64 [B, C]


def minimal_predictions(losses: Losses, student_logits: Tensor, steps: int = 200) -> dict[str, Tensor]:
    """softmax [B, C] of the logits at which L-BFGS ends, from `student_logits`: the minimum of each loss.

    A loss that leaves an offset, a scale or a class free has many minima: this one depends on the start.
    """
    found = {}
    for title, loss in losses.items():
        logits = student_logits.double().clone().requires_grad_()
        optimizer = torch.optim.LBFGS([logits], max_iter=steps, line_search_fn="strong_wolfe")
        optimizer.step(lambda loss=loss, logits=logits: _with_gradient(loss, logits))
        found[title] = logits.detach().softmax(1)
    return found


def _with_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    value = loss(logits)
    (logits.grad,) = torch.autograd.grad(value, logits)
    return value


def pulls(losses: Losses, student_logits: Tensor) -> dict[str, Tensor]:
    """[B, C]: the step of gradient descent on each logit, over the largest step. Above 0 the class is raised."""
    found = {}
    for title, loss in losses.items():
        logits = student_logits.double().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(logits), logits)
        found[title] = -gradient / gradient.abs().max()
    return found


def class_table(rows: dict[str, Tensor], classes: list[str], signed: bool = False):
    """A coloured table of numbers: a row for each [C], a column for each class. Numbers of 0 exactly are left out.

    Colours are of one scale from 0 to 1; with `signed` from -1, blue, to 1, red.
    """
    values = torch.stack(list(rows.values())).double()
    look = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1} if signed else {"cmap": "Blues", "vmin": 0, "vmax": 1}
    with styled():
        figure = new_figure(2.6 + 0.75 * len(classes), 0.5 + 0.27 * len(rows))
        axes = figure.subplots()
        axes.imshow(values.numpy(), aspect="auto", **look)
        for row, column in values.nonzero().tolist():
            value = values[row, column].item()
            color = "white" if abs(value) > 0.65 else "0.15"
            axes.annotate(f"{value:.2f}", (column, row), ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.grid(False)
        axes.spines[:].set_visible(False)
    return figure

"""Pictures of students' predictive distributions beside the teacher's: divergence, calibration, likeness of classes."""

import math
from textwrap import fill

import torch

from kdhelpers.analysis.agreement import logit_correlation, mean_off_diagonal
from kdhelpers.analysis.intervals import interval_bars
from kdhelpers.display.plots import PALETTE, new_figure, styled
from kdhelpers.evaluation.metrics import calibration, calibration_error_pct
from kdhelpers.evaluation.predictions import Predictions

NAMED = 20  # classes (or superclasses) that get their name on the axis; of more, none


def kl_bars(frame):
    """KL(teacher || student) of each row of an `agreement` frame: at T = 1 with its interval, softened, standardised.

    The order is the frame's, that of T = 1: whether it holds in the other panels is what they are there for.
    """
    interval = frame[["kl_nats", "kl_low_nats", "kl_high_nats"]].to_numpy().tolist()
    panels = {
        "T = 1": interval,
        "training temperature": [(value, math.nan, math.nan) for value in frame["kl_at_temperature_nats"]],
        "T = 1, standardised logits": [(value, math.nan, math.nan) for value in frame["kl_standardized_nats"]],
    }
    label = "KL(teacher || student) on the test images (nats); line: 95 % interval over images"
    return interval_bars(frame["student"].tolist(), panels, label, one_scale=False)


def reliability(predictions: dict[str, Predictions], columns: int = 4):
    """A reliability diagram per network, in the order given (the teacher first): accuracy per bin of confidence.

    The expected calibration error in each title is the mean height of the gaps between accuracy and mean confidence,
    over- and under-confident, weighted by the share of the images that the black steps show. 15 bins.
    """
    columns = max(1, min(columns, len(predictions)))
    rows = max(1, math.ceil(len(predictions) / columns))
    with styled():
        figure = new_figure(2.0 * columns + 0.6, 2.6 * rows + 0.5)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, (name, network) in zip(grid.flat, predictions.items(), strict=False):
            _diagram(axes, calibration(network))
            axes.set_title(f"{fill(name, 24)}\nECE {calibration_error_pct(network):.1f} %", fontsize=8.5)
            axes.set_xlabel("confidence (%)")
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy (%)")
        for axes in grid.flat[len(predictions) :]:
            axes.set_axis_off()
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels) if columns > 3 else columns)
    return figure


def _diagram(axes, bins) -> None:
    """bins: [bins, 3] as from `calibration`."""
    share, confidence, accuracy = (100 * bins).T.numpy()
    edges = torch.linspace(0, 100, len(bins) + 1, dtype=torch.float64).numpy()
    bar = {"x": edges[:-1], "width": edges[1], "align": "edge", "edgecolor": "white", "linewidth": 0.5}
    axes.bar(height=accuracy, color=PALETTE[5], label="accuracy", **bar)
    over, under = (confidence - accuracy).clip(0), (accuracy - confidence).clip(0)
    axes.bar(height=over, bottom=accuracy, color=PALETTE[1], label="over-confident by", **bar)
    axes.bar(height=under, bottom=confidence, color=PALETTE[2], label="under-confident by", **bar)
    axes.stairs(share, edges, color="black", linewidth=1, label="share of images")
    axes.plot([0, 100], [0, 100], color="0.3", linewidth=1, linestyle="--", label="calibrated")
    axes.set(xlim=(0, 100), ylim=(0, 100), xticks=(0, 50, 100), yticks=(0, 50, 100), box_aspect=1)


def logit_correlation_maps(teacher: Predictions, students: dict[str, Predictions], data=None, columns: int = 3):
    """The teacher's class-by-class `logit_correlation`, then |student - teacher| of it for each student, on one scale.

    With `data` (the Data predicted on) the classes of a superclass stand together, and the axis has names. The number
    in each student's title is the mean over pairs of different classes.
    """
    order, names = _places(data, teacher.logits.shape[1])
    reference = logit_correlation(teacher)[order][:, order]
    maps = {name: (logit_correlation(student)[order][:, order] - reference).abs() for name, student in students.items()}
    columns = max(1, min(columns, len(maps)))
    rows = max(1, math.ceil(len(maps) / columns))
    with styled():
        widths = [3.8 + 0.06 * max(map(len, names.values()), default=0), 2.2 * columns + 0.8]
        height = max(3.4, 2.4 * rows)
        figure = new_figure(sum(widths), height)
        left, right = figure.subfigures(1, 2, width_ratios=widths)
        axes = left.subplots()
        image = _map(axes, reference, "teacher", cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_yticks(list(names), [name.replace("_", " ") for name in names.values()], fontsize=7)
        # Anchored to the left: the layout measures names beside the box that the axes may fill, not the square they do.
        left.colorbar(image, ax=axes, label="correlation of logits", shrink=2 / height, panchor=(0, 0.5))
        grid = right.subplots(rows, columns, squeeze=False).ravel()
        if maps:
            right.colorbar(_differences(grid, maps), ax=list(grid), label="|student − teacher|", shrink=2 / height)
        for axes in grid[len(maps) :]:
            axes.set_axis_off()
    return figure


def _differences(grid, maps: dict):
    """Draw them on one scale; returns the last picture, for the colour bar."""
    largest = max(difference.max().item() for difference in maps.values()) or 1.0
    for axes, (name, difference) in zip(grid, maps.items(), strict=False):
        title = f"{fill(name, 24)}\nmean {mean_off_diagonal(difference):.3f}"
        image = _map(axes, difference, title, cmap="magma_r", vmin=0, vmax=largest)
    return image


def _places(data, classes: int):
    """The order in which classes stand, and place on the axis -> name, for as few as have room."""
    if data is None:
        return torch.arange(classes), {}
    if data.superclasses is None:
        return torch.arange(classes), dict(enumerate(data.class_names)) if classes <= NAMED else {}
    groups = torch.tensor(data.superclasses)
    order = groups.argsort(stable=True)
    middle = {group: (groups[order] == group).nonzero().double().mean().item() for group in groups.unique().tolist()}
    return order, {place: data.superclass_names[group] for group, place in middle.items()}


def _map(axes, values, title: str, **scale):
    image = axes.imshow(values.numpy(), interpolation="nearest", aspect="auto", **scale)
    axes.set_title(title, fontsize=8.5)
    axes.set(xticks=[], yticks=[], box_aspect=1)
    axes.grid(False)
    return image

"""Figures of agreement with the teacher: divergence, calibration, correlation of logits."""

import math
from textwrap import fill

import torch

from kdhelpers.analysis.agreement import logit_correlation, mean_off_diagonal
from kdhelpers.analysis.intervals import interval_bars
from kdhelpers.analysis.panels import MAX_NAMED_CLASSES
from kdhelpers.display.style import MAX_WIDTH, PALETTE, grid_shape, new_figure, panel_grid, styled
from kdhelpers.evaluation.metrics import calibration, calibration_error_pct
from kdhelpers.evaluation.predictions import Predictions


def kl_bars(frame):
    """KL(teacher || student) of each row of an `agreement` frame, in its order.

    Three panels: T = 1 with its interval, the training temperature, and standardised logits at T = 1.
    """
    panels = {
        "T = 1": frame[["kl_nats", "kl_low_nats", "kl_high_nats"]].to_numpy().tolist(),
        "training temperature": [(value, math.nan, math.nan) for value in frame["kl_at_temperature_nats"]],
        "T = 1, standardised logits": [(value, math.nan, math.nan) for value in frame["kl_standardized_nats"]],
    }
    label = "KL(teacher || student) on the test images (nats); line: 95 % interval over images"
    return interval_bars(frame["student"].tolist(), panels, label, one_scale=False)


def reliability(predictions: dict[str, Predictions]):
    """A reliability diagram per network, in the order given: accuracy per bin of confidence, 15 bins.

    The title gives the expected calibration error: the mean gap between accuracy and confidence over bins, weighted by
    the share of images (black steps).
    """
    rows, columns = grid_shape(len(predictions), 4 if len(predictions) <= 8 else 5)
    side = min(2.0, (MAX_WIDTH - 0.6) / columns)
    with styled():
        figure = new_figure(side * columns + 0.6, (side + 0.6) * rows + 0.5)
        grid = panel_grid(figure, (rows, columns), len(predictions))
        for axes, (name, network) in zip(grid.flat, predictions.items(), strict=False):
            _diagram(axes, calibration(network))
            axes.set_title(f"{fill(name, 24)}\nECE {calibration_error_pct(network):.1f} %", fontsize=8.5)
            axes.set_xlabel("confidence (%)")
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy (%)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels) if columns > 3 else columns)
    return figure


def _diagram(axes, bins) -> None:
    """bins: [bins, 3], see `calibration`."""
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


def logit_correlation_maps(teacher: Predictions, students: dict[str, Predictions], data=None):
    """The teacher's `logit_correlation` [C, C], then |student - teacher| for each student, all students on one scale.

    With `data` (the Data predicted on) the classes of a superclass are adjacent, and the axis has names. A student's
    title gives the mean over pairs of different classes.
    """
    order, names = _class_order(data, teacher.logits.shape[1])
    reference, *others = (logit_correlation(network)[order][:, order] for network in (teacher, *students.values()))
    differences = [(other - reference).abs() for other in others]
    largest = max((difference.max().item() for difference in differences), default=0.0) or 1.0
    shape = grid_shape(len(students), next((most for most in (2, 3) if len(students) <= most**2), 4))
    with styled():
        first = 2.9 + 0.06 * max(map(len, names.values()), default=0)
        side = min(1.8, (MAX_WIDTH - first - 0.7) / shape[1])
        widths = [first, side * shape[1] + 0.7]
        height = max(3.0, (side + 0.4) * shape[0])
        figure = new_figure(sum(widths), height)
        left, right = figure.subfigures(1, 2, width_ratios=widths)
        axes = left.subplots()
        image = _matrix(axes, reference, "teacher", cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_yticks(list(names), [name.replace("_", " ") for name in names.values()], fontsize=7)
        # Anchored to the left: the layout places names next to the axes' full box, not next to the square inside it.
        left.colorbar(image, ax=axes, label="correlation of logits", shrink=2 / height, panchor=(0, 0.5))
        grid = panel_grid(right, shape, len(students)).ravel()
        for axes, name, difference in zip(grid, students, differences, strict=False):
            title = f"{fill(name, round(13 * side))}\nmean {mean_off_diagonal(difference):.3f}"
            image = _matrix(axes, difference, title, cmap="magma_r", vmin=0, vmax=largest)
            axes.title.set_size(8.5 * min(1, side))
        if students:
            right.colorbar(image, ax=list(grid), label="|student − teacher|", shrink=2 / height)
    return figure


def _class_order(data, classes: int):
    """(order of the classes, position on the axis -> name); the names are left out if there are too many."""
    if data is None or data.superclasses is None:
        named = data is not None and classes <= MAX_NAMED_CLASSES
        return torch.arange(classes), dict(enumerate(data.class_names)) if named else {}
    groups = torch.tensor(data.superclasses)
    order = groups.argsort(stable=True)
    middle = {group: (groups[order] == group).nonzero().double().mean().item() for group in groups.unique().tolist()}
    return order, {position: data.superclass_names[group] for group, position in middle.items()}


def _matrix(axes, values, title: str, **scale):
    image = axes.imshow(values.numpy(), interpolation="nearest", aspect="auto", **scale)
    axes.set_title(title, fontsize=8.5)
    axes.set(xticks=[], yticks=[], box_aspect=1)
    axes.grid(False)
    return image

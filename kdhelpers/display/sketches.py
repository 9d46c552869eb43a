"""Pictures of an idea: numbers as bars, histograms, points on a circle, their forces, feature maps, targets."""

from collections.abc import Callable

import torch
from torch import Tensor

from kdhelpers.display.style import PALETTE, grid_shape, new_figure, panel_grid, styled
from kdhelpers.methods.rkd import distances_and_angles


def distributions(named: dict[str, Tensor], classes: list[str], label: str = "probability"):
    """A panel of bars for each distribution [C], all on one scale, every bar with its value."""
    with styled():
        figure = new_figure(2.5 * len(named), 2.2)
        grid = figure.subplots(1, len(named), sharey=True, squeeze=False)[0]
        for axes, (title, values) in zip(grid, named.items(), strict=True):
            axes.bar(classes, values.tolist(), color=PALETTE[0], width=0.7)
            for place, value in enumerate(values.tolist()):
                end = "bottom" if value >= 0 else "top"
                axes.annotate(f"{value:.2f}", (place, value), ha="center", va=end, fontsize=8)
            axes.set_title(title)
            axes.grid(False, axis="x")
            axes.margins(y=0.15)
        grid[0].set_ylabel(label)
    return figure


def histograms(named: dict[str, Tensor], label: str, bins: int = 20):
    """A panel for each sample [N], all on one scale: its histogram; the title has the mean and the middle 95 %."""
    span = (
        min(values.min().item() for values in named.values()),
        max(values.max().item() for values in named.values()),
    )
    with styled():
        figure = new_figure(3.4 * len(named), 2.3)
        grid = figure.subplots(1, len(named), sharex=True, squeeze=False)[0]
        for axes, (title, values) in zip(grid, named.items(), strict=True):
            low, high = values.double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
            axes.hist(values.tolist(), bins=bins, range=span, color=PALETTE[0])
            axes.axvspan(low, high, color="0.88", zorder=0)
            axes.set_title(f"{title}\nmean {values.double().mean():.2f}, middle 95 %: {low:.2f} to {high:.2f}")
            axes.set_xlabel(label)
            axes.set_yticks([])
            axes.grid(False)
    return figure


def forces(losses: dict[str, Callable], angles: Tensor, classes: list[int], keys: Tensor | None = None):
    """Points on a circle, and an arrow along it for each: the direction in which a step of gradient descent moves it.

    losses: title -> loss of unit vectors float64 [N, 2], a scalar. angles: [N], in radians. classes: number of each
    image's class, its colour. keys: angles [M] of fixed embeddings, drawn as squares; point i and key i belong to image
    i, and the last images may have a key alone. The longest arrow has one length in all panels.
    """
    with styled():
        figure = new_figure(3.3 * len(losses), 3.3)
        grid = figure.subplots(1, len(losses), squeeze=False)[0]
        for axes, (title, loss) in zip(grid, losses.items(), strict=True):
            moved = angles.double().clone().requires_grad_()
            (slope,) = torch.autograd.grad(loss(on_circle(moved)), moved)
            _circle(axes, title)
            for angle, kind in zip([] if keys is None else keys.tolist(), classes, strict=False):
                _point(axes, angle, kind, marker="s", radius=1.12)
            for angle, step, kind in zip(angles.tolist(), (-slope / slope.abs().max()).tolist(), classes, strict=False):
                _point(axes, angle, kind, marker="o", radius=1.0)
                _arrow(axes, angle, 0.5 * step, kind)
    return figure


def circles(named: dict[str, Tensor], classes: list[int]):
    """Points on a circle, a panel for each set of angles [N], in radians; their class gives the colour."""
    with styled():
        figure = new_figure(2.8 * len(named), 3.3)
        grid = figure.subplots(1, len(named), squeeze=False)[0]
        for axes, (title, angles) in zip(grid, named.items(), strict=True):
            _circle(axes, title)
            for angle, kind in sorted(zip(angles.tolist(), classes, strict=True)):  # the next one is on top
                _point(axes, angle, kind, marker="o", radius=1.0)
        figure.get_layout_engine().set(h_pad=0.1)  # else titles of two lines are cut off
    return figure


def on_circle(angles: Tensor) -> Tensor:
    """Unit vectors [N, 2] of angles [N]."""
    return torch.stack([angles.cos(), angles.sin()], 1)


def _circle(axes, title: str) -> None:
    round_trip = on_circle(torch.linspace(0, 6.2832, 200))
    axes.plot(*round_trip.T.tolist(), color="0.85", linewidth=1)
    axes.set_title(title)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35))


def _point(axes, angle: float, kind: int, marker: str, radius: float) -> None:
    x, y = (radius * on_circle(torch.tensor([angle]))[0]).tolist()
    axes.plot(x, y, marker, color=PALETTE[kind], markersize=9, markeredgecolor="white")


def _arrow(axes, angle: float, step: float, kind: int) -> None:
    if abs(step) > 0.02:  # else the head alone would be longer
        start, end = on_circle(torch.tensor([angle, angle + step])).tolist()
        bend = f"arc3,rad={0.25 * step:.3f}"
        style = {"arrowstyle": "-|>", "color": PALETTE[kind], "linewidth": 1.6, "connectionstyle": bend}
        axes.annotate("", end, start, arrowprops=style)


def triangles(named: dict[str, Tensor]):
    """A panel for each three points [3, 2]: sides with their length over the mean, corners with their angle.

    These are the relations of three images that RKD compares. All panels have one scale and the points' mean at 0.
    """
    with styled():
        figure = new_figure(2.9 * len(named), 3.0)
        grid = figure.subplots(1, len(named), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (title, points) in zip(grid, named.items(), strict=True):
            _triangle(axes, points.double() - points.double().mean(0))
            axes.set_title(title)
            axes.set_aspect("equal")
            axes.set_axis_off()
            axes.margins(0.2)
    return figure


def _triangle(axes, points: Tensor) -> None:  # around (0, 0)
    distances, cosines = distances_and_angles(points)
    outward = torch.nn.functional.normalize(points, dim=1)
    axes.plot(*points[[0, 1, 2, 0]].T.tolist(), color="0.75", linewidth=1.2, zorder=1)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        degrees = cosines[i, j, k].clamp(-1, 1).arccos().rad2deg()
        axes.plot(*points[i].tolist(), "o", color=PALETTE[i], markersize=9, markeredgecolor="white")
        beyond = {"xytext": (18 * outward[i]).tolist(), "textcoords": "offset points", "ha": "center", "va": "center"}
        axes.annotate(f"{degrees:.0f}°", points[i].tolist(), color=PALETTE[i], **beyond)
        middle, box = ((points[i] + points[j]) / 2).tolist(), {"color": "white", "pad": 1}
        axes.annotate(f"{distances[i, j]:.2f}", middle, ha="center", va="center", fontsize=8, bbox=box)


def maps(rows: dict[str, Tensor], columns: int = 8):
    """A row of grey pictures for each [C, H, W]: its first channels; the row's label has its shape."""
    with styled():
        figure = new_figure(1.0 * columns + 1.2, 1.05 * len(rows))
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for line, (label, channels) in zip(grid, rows.items(), strict=True):
            for axes, channel in zip(line, channels.detach().float(), strict=False):
                axes.imshow(channel.numpy(), cmap="gray")
            shape = " × ".join(map(str, channels.shape))
            line[0].set_ylabel(f"{label}\n{shape}", rotation=0, ha="right", va="center")
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[], frame_on=False)
    return figure


def candidates(images: Tensor, titles: list[str], scores: dict[str, Tensor]):
    """A row of uint8 images [1 + N, 3, H, W] with their titles; below it a row of bars for each scores [N].

    The first image is the anchor, which the N others are scored against. A row's label names its scores.
    """
    with styled():
        figure = new_figure(1.15 * len(images), 1.3 + 1.1 * len(scores))
        grid = figure.subplots(1 + len(scores), len(images), sharey="row")
        for axes, image, title in zip(grid[0], images, titles, strict=True):
            axes.imshow(image.permute(1, 2, 0).numpy())
            axes.set_title(title, fontsize=8, fontweight="normal", pad=3)
        for line, (label, values) in zip(grid[1:], scores.items(), strict=True):
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
            for axes, value in zip(line[1:], values.tolist(), strict=True):
                axes.bar([0], [value], color=PALETTE[0], width=0.5)
                axes.axhline(0, color="0.5", linewidth=0.8)
                axes.annotate(f"{value:.2f}", (0, max(value, 0)), ha="center", va="bottom", fontsize=8)
                axes.set_xlim(-0.5, 0.5)
                axes.margins(y=0.3)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[], frame_on=False)
    return figure


def heat(named: dict[str, Tensor], columns: int = 8):
    """Maps [H, W] under their titles, row by row, on one scale around 0: red above, blue below."""
    largest = max(values.abs().max().item() for values in named.values())
    with styled():
        rows, columns = grid_shape(len(named), columns)
        figure = new_figure(2.1 * columns, 2.3 * rows)
        grid = panel_grid(figure, (rows, columns), len(named))
        for axes, (title, values) in zip(grid.flat, named.items(), strict=False):
            axes.imshow(values.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
            axes.set_title(title)
            axes.set(xticks=[], yticks=[], frame_on=False)
    return figure


def targets(images: Tensor, titles: list[str], rows: dict[str, Tensor]):
    """A row of uint8 images [N, 3, H, W] with their titles; below it, for each [N, C], a bar per class and image."""
    with styled():
        figure = new_figure(1.25 * len(images), 1.4 + 0.95 * len(rows))
        grid = figure.subplots(1 + len(rows), len(images), sharey="row", squeeze=False)
        for axes, image, title in zip(grid[0], images, titles, strict=True):
            axes.imshow(image.permute(1, 2, 0).numpy())
            axes.set_title(title, fontsize=8, fontweight="normal", pad=3)
        for line, (label, values) in zip(grid[1:], rows.items(), strict=True):
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
            for axes, bars in zip(line, values.tolist(), strict=True):
                axes.bar(range(len(bars)), bars, color=PALETTE[0], width=0.8)
                axes.axhline(0, color="0.5", linewidth=0.8)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[], frame_on=False)
            axes.grid(False)
    return figure

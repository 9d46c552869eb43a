"""The bootstrap interval of a mean over images, and bars with intervals."""

import math

import torch
from torch import Tensor

from kdhelpers.display.colours import colour_of
from kdhelpers.display.style import MAX_WIDTH, PALETTE, new_figure, styled

LEVELS = (0.025, 0.975)


def mean_interval(values: Tensor, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of `values` [N], one per image, with the 95 % percentile bootstrap interval (Efron 1979).

    The interval is over images, not over training seeds. The resamples depend on N, `resamples` and `seed` only, so
    two quantities of the same images are resampled alike. low and high are NaN for a single value. Raises ValueError
    for no values.
    """
    count = len(values)
    if count == 0:
        raise ValueError("values: none given; a mean needs at least one image")
    values, generator = values.cpu().double(), torch.Generator().manual_seed(seed)
    mean = values.mean().item()
    if count == 1:
        return mean, math.nan, math.nan
    # One resample at a time: together their indices take 160 MB for the 10,000 images of CIFAR-100.
    means = [values[torch.randint(count, (count,), generator=generator)].mean() for _ in range(resamples)]
    low, high = torch.stack(means).quantile(torch.tensor(LEVELS, dtype=torch.float64)).tolist()
    return mean, low, high


def paired_difference(first: Tensor, second: Tensor) -> dict[str, float]:
    """The mean of first - second [N], measures of two networks on the same images; `tables.difference` words it.

    Returns difference, low, high (see `mean_interval`) and n. Images where a measure is NaN are left out.
    """
    values = first.double() - second.double()
    values = values[~values.isnan()]
    return dict(zip(("difference", "low", "high"), mean_interval(values), strict=True)) | {"n": len(values)}


def interval_bars(names, panels: dict[str, list[tuple[float, float, float]]], label: str, one_scale: bool = True):
    """Horizontal bars, a panel per title, a bar per name: (value, low, high); a NaN interval is not drawn.

    one_scale: the panels share their axis.
    """
    with styled():
        width = 1.0 + 0.075 * max(map(len, names), default=0) + 2.1 * len(panels)
        figure = new_figure(min(width, MAX_WIDTH), 0.8 + 0.27 * max(1, len(names)))
        grid = figure.subplots(1, len(panels), squeeze=False, sharex=one_scale, sharey=True)[0]
        for axes, (title, rows) in zip(grid, panels.items(), strict=True):
            for position, (name, row) in enumerate(zip(names, rows, strict=True)):
                _bar(axes, position, *row, colour_of(name, PALETTE[0]))
            axes.set_title(title)
            axes.grid(False, axis="y")
            axes.margins(x=0.28)  # room for the numbers
            axes.locator_params(axis="x", nbins=4)
        grid[0].set_yticks(range(len(names)), names)
        grid[0].invert_yaxis()  # the first on top
        figure.supxlabel(label, fontsize=9)
        figure.get_layout_engine().set(wspace=0.05)  # keeps tick labels of neighbouring panels apart
    return figure


def _bar(axes, position: int, value: float, low: float, high: float, colour: str) -> None:
    axes.barh(position, value, height=0.62, color=colour)
    axes.plot([low, high], [position, position], color="0.15", linewidth=1, marker="|", markersize=5)
    end = max(number for number in (0.0, value, high) if not math.isnan(number))
    axes.annotate(f"{value:.3g}", (end, position), (5, 0), textcoords="offset points", va="center", fontsize=8)

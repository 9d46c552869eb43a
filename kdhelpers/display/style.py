"""The house style of all figures: sizes, colours, grids. No function uses pyplot's state."""

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

MAX_WIDTH = 9.0  # inches of a figure; notebooks show 100 dots per inch, and 900 fit on a page
HIGHEST = 9.0  # inches of a figure that grows with the number of settings: a screen
# Okabe and Ito's colours, distinct for colour-blind readers too; black is the teacher's.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
TEACHER_LINE = {"color": "black", "linestyle": "--", "linewidth": 1.2}
ROW, PANEL_HEAD, NOTES = 0.2, 0.5, 0.3  # inches of a row, of a panel's title and ticks, of lines above and below all
LINES = ("-", "-.", (0, (1, 1.2)), (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)))  # of lines of one colour
STYLE = {
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.4",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "text.parse_math": False,  # a class may be called a$_$, which is not a formula
}


def styled():
    """Context that makes and draws figures in the house style; the user's settings stay as they are."""
    return matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float):
    """An empty Figure, `width` by `height` inches, whose layout keeps its parts apart."""
    return Figure(figsize=(width, height), layout="constrained")


def grid_shape(count: int, columns: int) -> tuple[int, int]:
    """(rows, columns) of a grid for `count` panels, at most `columns` wide and at least 1x1."""
    columns = max(1, min(columns, count))
    return max(1, math.ceil(count / columns)), columns


def panel_grid(parent, shape: tuple[int, int], count: int, **options):
    """Axes [rows, columns] of a figure or subfigure; the axes after the first `count` are hidden."""
    grid = parent.subplots(*shape, squeeze=False, **options)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return grid


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def stacked_panels(rows: Sequence[int]):
    """A figure of MAX_WIDTH and an axes for each number of rows, one below the other on one scale; ROW is a row's."""
    heights = [ROW * max(1, count) + PANEL_HEAD for count in rows]
    figure = new_figure(MAX_WIDTH, sum(heights) + NOTES)
    grid = figure.subplots(len(rows), 1, squeeze=False, sharex=True, height_ratios=heights)
    return figure, list(grid[:, 0])


def rows_that_fit(rows: Sequence[int]) -> int:
    """The most rows that each panel of `stacked_panels` may keep, so that the figure is at most HIGHEST; at least 1."""
    room = round((HIGHEST - NOTES - PANEL_HEAD * len(rows)) / ROW, 6)  # without the rounding error
    return next((most for most in range(max(rows), 1, -1) if sum(min(most, count) for count in rows) <= room), 1)

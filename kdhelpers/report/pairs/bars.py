"""The picture of a group of pairs: a panel per pair, a bar per method that starts at the student without a teacher."""

import math
from textwrap import fill, wrap

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kdhelpers.display.colours import colour_of
from kdhelpers.display.curves import short_names
from kdhelpers.display.style import (
    HIGHEST,
    MAX_WIDTH,
    TEACHER_LINE,
    grid_shape,
    new_figure,
    panel_grid,
    shorten,
    styled,
)
from kdhelpers.display.text import MARK, evidence_note, mark_meaning
from kdhelpers.zoo.benchmark import BASELINE, in_order

NARROW = 30  # most methods of a panel of which three fit next to each other
PANEL, FOOT = 2.75, 0.6  # inches of a panel with its names, of the legend
MARKER = {"marker": "D", "markersize": 5, "linestyle": "none", "markerfacecolor": "white", "markeredgecolor": "black"}
ERROR = {"ecolor": "0.15", "capsize": 3, "elinewidth": 1}
POINT = {"fmt": "o", "markersize": 4, **ERROR}
HEAD = ["dataset", "teacher", "student", "budget"]
BASE_LINE = {"color": "0.4", "linewidth": 0.8}


def bars(frame):
    """A group of `beside_ours` as a Figure: test top-1 in %, our mean and standard deviation, published as diamonds.

    A bar starts at our student trained without a teacher, of another optimiser if its budget has none; without both
    there is a point, and no bar. Published figures of a larger budget than 240 epochs of one view are left out. So are
    pairs that do not fit on a screen, first those with fewest settings of ours; the picture has their number.
    """
    larger = frame["published_budget"] > 1
    frame = frame.assign(published_pct=frame["published_pct"].astype(float).mask(larger))
    columns = {key: rows.set_index("method") for key, rows in frame.groupby(HEAD, sort=False)}
    most = max(len(_methods(column)) for column in columns.values())
    across = 3 if most <= NARROW else 1
    shown, left_out = _that_fit(columns, across * int((HIGHEST - FOOT) / PANEL))
    rows, across = grid_shape(len(shown), across)
    with styled():
        figure = new_figure(MAX_WIDTH if across > 1 or most > NARROW else 0.6 * MAX_WIDTH, PANEL * rows + FOOT)
        grid = panel_grid(figure, (rows, across), len(shown)).ravel()
        for axes, (key, column) in zip(grid, shown.items(), strict=False):
            _draw(axes, column, crowded=most > 12)
            _head(axes, key, bool(column["notes"].fillna("").any()))
        for axes in grid[::across]:
            axes.set_ylabel("test top-1 (%)")
        _legend(figure, frame, bool(larger.any()))
        notes = (evidence_note(frame["dataset"]), mark_meaning(frame["notes"].fillna("")), left_out)
        if any(notes):
            figure.suptitle(" · ".join(filter(None, notes)), color="#B03A2E")
    return figure


def _that_fit(columns: dict, most: int) -> tuple[dict, str]:
    ours = {key: int(column["test_top1_pct"].notna().sum()) for key, column in columns.items()}
    kept = sorted(columns, key=lambda key: -ours[key])[:most]
    others = len(columns) - len(kept)
    note = f"panels that are left out: {others}; the table has all" if others else ""
    return {key: column for key, column in columns.items() if key in kept}, note


def _head(axes, key: tuple, noted: bool) -> None:
    _, teacher, student, budget = key
    subtitle = "\n".join(wrap(budget or "not run yet", 44, break_on_hyphens=False)[:2])
    axes.set_title(f"{teacher} → {student}{MARK * noted}", pad=9 + 9 * (1 + subtitle.count("\n")))
    axes.annotate(subtitle, (0.5, 1.01), xycoords="axes fraction", ha="center", fontsize=7)


def _methods(column) -> list[str]:
    """The methods of a panel: those with a figure of ours or a published one."""
    figures = column["test_top1_pct"].astype(float).fillna(column["published_pct"].astype(float))
    return in_order(figures.drop("teacher", errors="ignore").dropna().index)


def _draw(axes, column, crowded: bool) -> None:
    top1, std, published, gain = (
        column[field].astype(float) for field in ("test_top1_pct", "test_top1_std_pct", "published_pct", "gain_points")
    )
    methods = _methods(column)
    axes.use_sticky_edges = False  # else a panel may end at the line where bars begin
    base, teacher = (top1.get(method, math.nan) for method in (BASELINE, "teacher"))
    for place, method in enumerate(methods):
        colour = colour_of(str(column["label"].get(method)))
        own = math.nan if method == BASELINE else top1[method] - gain[method] if math.isnan(base) else base
        _draw_ours(axes, place, top1[method], std[method], own, colour)
        axes.plot([place], [published[method]], **MARKER)
    if not math.isnan(teacher):
        axes.axhline(teacher, zorder=0.9, **TEACHER_LINE)
    if not math.isnan(base):
        axes.axhline(base, zorder=0.9, **BASE_LINE)
    elif gain.notna().any():
        _borrowed(axes, float((top1 - gain).mean()), column.loc[gain.notna(), "baseline"].iloc[0])
    names = short_names(methods).values()
    names = [shorten(name, 18) if crowded else fill(name, 23, max_lines=2, placeholder="…") for name in names]
    look = {"rotation": 90, "fontsize": 7} if crowded else {"rotation": 60, "ha": "right", "fontsize": 7.5}
    axes.set_xticks(range(len(methods)), names, linespacing=1.15, multialignment="right", **look)
    axes.tick_params(axis="x", pad=0)
    axes.set_xlim(-0.6, max(3, len(methods)) - 0.4)  # a single bar would fill the panel
    axes.grid(False, axis="x")


def _borrowed(axes, base: float, name: str) -> None:
    """The line of a student without a teacher by another optimiser, which has its name."""
    axes.axhline(base, zorder=0.9, **BASE_LINE | {"linestyle": ":"})
    look = {"ha": "right", "va": "bottom", "fontsize": 7, "color": "0.3", "xycoords": ("axes fraction", "data")}
    axes.annotate(name, (0.99, base), (0, 1), textcoords="offset points", **look)


def _draw_ours(axes, place: int, mean: float, std: float, base: float, colour: str) -> None:
    whisker = None if math.isnan(std) else std  # never invented for a single run
    if math.isnan(mean):
        return
    if math.isnan(base):
        axes.errorbar([place], [mean], yerr=whisker, color=colour, **POINT)
    else:
        axes.bar([place], [mean - base], bottom=base, width=0.7, color=colour, yerr=whisker, error_kw=ERROR)


def _legend(figure, frame, larger: bool) -> None:
    handles = [
        Patch(color="0.5", label="ours, mean ± std over seeds"),
        Line2D([], [], **BASE_LINE, label=f"our {BASELINE} without a teacher, where bars begin"),
        Line2D([], [], **TEACHER_LINE, label="our teacher"),
    ]
    if frame["published_pct"].notna().any():
        handles.append(Line2D([], [], **MARKER, label="published" + ", 240 epochs of one view" * larger))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)

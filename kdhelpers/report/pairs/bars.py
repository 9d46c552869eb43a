"""The picture of a group of pairs: a panel per pair, a bar per method from our student alone up or down."""

import math
from textwrap import wrap

from kdhelpers.display.plots import PALETTE, TEACHER_LINE, new_figure, shorten, styled
from kdhelpers.display.text import MARK, evidence_note, mark_meaning
from kdhelpers.zoo.benchmark import BASE, in_order

ACROSS = 4  # panels
MARKER = {"marker": "D", "markersize": 5, "linestyle": "none", "color": PALETTE[1], "markeredgewidth": 0}
POINT = {"fmt": "o", "markersize": 4, "color": PALETTE[0], "ecolor": "0.15", "capsize": 3, "elinewidth": 1}


def bars(frame):
    """A group of `beside_ours` as a Figure: test top-1 in %, our mean and standard deviation, published as diamonds.

    A bar begins at our student without a teacher, so its length is the gain and no axis has to begin at zero; where
    that student was not trained there is a point alone. The dashed line is the teacher that taught ours.
    """
    columns = list(frame.groupby(["dataset", "teacher", "student", "budget"], sort=False))
    across = min(ACROSS, len(columns))
    rows = math.ceil(len(columns) / across)
    with styled():
        figure = new_figure(3.3 * across + 0.4, 3.2 * rows + 0.6)
        grid = figure.subplots(rows, across, squeeze=False).ravel()
        for axes in grid[len(columns) :]:
            axes.set_axis_off()
        for axes, ((_, teacher, student, budget), column) in zip(grid, columns, strict=False):
            _draw(axes, column.set_index("method"))
            leaks = MARK * bool(column["ours_note"].fillna("").any())
            told = _wrapped(budget or "not run yet")
            axes.set_title(f"{teacher} → {student}{leaks}", pad=9 + 9 * (1 + told.count("\n")))
            axes.annotate(told, (0.5, 1.01), xycoords="axes fraction", ha="center", fontsize=7)
        for axes in grid[::across]:
            axes.set_ylabel("test top-1 (%)")
        _legend(figure, bool(frame["published_pct"].notna().any()))
        if notes := list(filter(None, [evidence_note(frame["dataset"]), mark_meaning(frame["ours_note"].fillna(""))])):
            figure.suptitle(" · ".join(notes), color="#B03A2E")
    return figure


def _wrapped(text: str) -> str:
    return "\n".join(wrap(text, 44, break_on_hyphens=False)[:2])


def _draw(axes, column) -> None:
    ours, spread, theirs = (column[f].astype(float) for f in ("ours_pct", "ours_std_pct", "published_pct"))
    known = ours.fillna(theirs).drop("teacher", errors="ignore").dropna()
    shown = in_order(known.index)  # the teacher is a line
    for place, method in enumerate(shown):
        _draw_ours(axes, place, ours[method], spread[method], math.nan if method == BASE else ours.get(BASE, math.nan))
        axes.plot([place], [theirs[method]], **MARKER)
    if not math.isnan(teacher := ours.get("teacher", math.nan)):
        axes.axhline(teacher, zorder=0.9, **TEACHER_LINE)
    if not math.isnan(ours.get(BASE, math.nan)):
        axes.axhline(ours[BASE], color="0.4", linewidth=0.8, zorder=0.9)
    axes.set_xticks(range(len(shown)), [shorten(method, 18) for method in shown], rotation=60, ha="right", fontsize=8)
    axes.tick_params(axis="x", pad=0)
    axes.set_xlim(-0.6, len(shown) - 0.4)
    axes.grid(False, axis="x")


def _draw_ours(axes, place: int, mean: float, spread: float, alone: float) -> None:
    whisker = None if math.isnan(spread) else spread  # never invented for a single run
    if math.isnan(mean):
        return
    if math.isnan(alone):
        axes.errorbar([place], [mean], yerr=whisker, **POINT)
    else:
        error = {"ecolor": "0.15", "capsize": 3, "elinewidth": 1}
        axes.bar([place], [mean - alone], bottom=alone, width=0.7, color=PALETTE[0], yerr=whisker, error_kw=error)


def _legend(figure, printed: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    student = f"our {BASE} without a teacher, where bars begin"
    handles = [
        Patch(color=PALETTE[0], label="ours, mean ± std over seeds"),
        Line2D([], [], color="0.4", linewidth=0.8, label=student),
        Line2D([], [], **TEACHER_LINE, label="teacher of ours"),
        *([Line2D([], [], **MARKER, label="published")] if printed else []),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))

"""The picture of a group of pairs: a panel per pair, a bar per method that starts at the student without a teacher."""

import math
from textwrap import wrap

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kdhelpers.display.colours import colour_of
from kdhelpers.display.curves import short_names
from kdhelpers.display.style import MAX_WIDTH, TEACHER_LINE, grid_shape, new_figure, panel_grid, shorten, styled
from kdhelpers.display.text import MARK, evidence_note, mark_meaning
from kdhelpers.zoo.benchmark import BASELINE, in_order

PANELS_PER_ROW = {10: 3, 30: 2}  # most methods of a panel -> how many fit
MARKER = {"marker": "D", "markersize": 5, "linestyle": "none", "markerfacecolor": "white", "markeredgecolor": "black"}
ERROR = {"ecolor": "0.15", "capsize": 3, "elinewidth": 1}
POINT = {"fmt": "o", "markersize": 4, **ERROR}
BASE_LINE = {"color": "0.4", "linewidth": 0.8}


def bars(frame):
    """A group of `beside_ours` as a Figure: test top-1 in %, our mean and standard deviation, published as diamonds.

    A bar starts at our student trained without a teacher; without one there is a point, and no bar. Published figures
    of a larger budget than 240 epochs of one view are left out.
    """
    larger = frame["published_budget"] > 1
    frame = frame.assign(published_pct=frame["published_pct"].astype(float).mask(larger))
    columns = list(frame.groupby(["dataset", "teacher", "student", "budget"], sort=False))
    most = max(len(_methods(column.set_index("method"))) for _, column in columns)
    rows, across = grid_shape(len(columns), next((fit for many, fit in PANELS_PER_ROW.items() if most <= many), 1))
    with styled():
        figure = new_figure(MAX_WIDTH if across > 1 or most > 30 else 0.6 * MAX_WIDTH, 2.9 * rows + 0.6)
        grid = panel_grid(figure, (rows, across), len(columns)).ravel()
        for axes, ((_, teacher, student, budget), column) in zip(grid, columns, strict=False):
            _draw(axes, column.set_index("method"))
            mark = MARK * bool(column["notes"].fillna("").any())
            subtitle = "\n".join(wrap(budget or "not run yet", 44, break_on_hyphens=False)[:2])
            axes.set_title(f"{teacher} → {student}{mark}", pad=9 + 9 * (1 + subtitle.count("\n")))
            axes.annotate(subtitle, (0.5, 1.01), xycoords="axes fraction", ha="center", fontsize=7)
        for axes in grid[::across]:
            axes.set_ylabel("test top-1 (%)")
        _legend(figure, bool(frame["published_pct"].notna().any()), bool(larger.any()))
        if notes := list(filter(None, [evidence_note(frame["dataset"]), mark_meaning(frame["notes"].fillna(""))])):
            figure.suptitle(" · ".join(notes), color="#B03A2E")
    return figure


def _methods(column) -> list[str]:
    """The methods of a panel: those with a figure of ours or a published one."""
    figures = column["test_top1_pct"].astype(float).fillna(column["published_pct"].astype(float))
    return in_order(figures.drop("teacher", errors="ignore").dropna().index)


def _draw(axes, column) -> None:
    top1, std, published = (
        column[field].astype(float) for field in ("test_top1_pct", "test_top1_std_pct", "published_pct")
    )
    methods = _methods(column)
    base, teacher = (top1.get(method, math.nan) for method in (BASELINE, "teacher"))
    for place, method in enumerate(methods):
        colour = colour_of(str(column["label"].get(method)))
        _draw_ours(axes, place, top1[method], std[method], math.nan if method == BASELINE else base, colour)
        axes.plot([place], [published[method]], **MARKER)
    if not math.isnan(teacher):
        axes.axhline(teacher, zorder=0.9, **TEACHER_LINE)
    if not math.isnan(base):
        axes.axhline(base, zorder=0.9, **BASE_LINE)
    axes.set_xticks(
        range(len(methods)),
        [shorten(name, 18) for name in short_names(methods).values()],
        rotation=60,
        ha="right",
        fontsize=8,
    )
    axes.tick_params(axis="x", pad=0)
    axes.set_xlim(-0.6, len(methods) - 0.4)
    axes.grid(False, axis="x")


def _draw_ours(axes, place: int, mean: float, std: float, base: float, colour: str) -> None:
    whisker = None if math.isnan(std) else std  # never invented for a single run
    if math.isnan(mean):
        return
    if math.isnan(base):
        axes.errorbar([place], [mean], yerr=whisker, color=colour, **POINT)
    else:
        axes.bar([place], [mean - base], bottom=base, width=0.7, color=colour, yerr=whisker, error_kw=ERROR)


def _legend(figure, printed: bool, larger: bool) -> None:
    handles = [
        Patch(color="0.5", label="ours, mean ± std over seeds"),
        Line2D([], [], **BASE_LINE, label=f"our {BASELINE} without a teacher, where bars begin"),
        Line2D([], [], **TEACHER_LINE, label="our teacher"),
        *([Line2D([], [], **MARKER, label="published" + ", 240 epochs of one view" * larger)] if printed else []),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)

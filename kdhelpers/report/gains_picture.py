"""The picture of the gains: a panel per pair and budget, a row per method, a point per seed."""

import math
from textwrap import wrap

from kdhelpers.display.colours import colour_of
from kdhelpers.display.curves import short_names
from kdhelpers.display.style import HIGHEST, MAX_WIDTH, TEACHER_LINE, new_figure, shorten, styled
from kdhelpers.display.text import MARK, evidence_note, mark_meaning, signed_text

ROW, HEAD, FOOT = 0.28, 0.62, 0.75  # inches of a method, of a panel's title and ticks, of the figure's notes
NAME, TITLE = 40, 80  # letters of a method, of a title's line
NEAR = 2.0  # a teacher's line is drawn up to so many times the largest gain
BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
AXIS = "gain in test accuracy over the student alone (percentage points)"


def pages(frames: list) -> list[list]:
    """Frames that fit into one figure each, in their order."""
    found: list[list] = []
    for frame in frames:
        if found and FOOT + sum(map(_height, [*found[-1], frame])) <= HIGHEST:
            found[-1].append(frame)
        else:
            found.append([frame])
    return found


def _height(frame) -> float:
    return HEAD + ROW * max(1, frame["method"].nunique())


def picture(*frames):
    """Frames of `gains.by_seed` as a Figure: a panel each, a row per method, a point per seed, the mean and ± std."""
    heights = list(map(_height, frames))
    with styled():
        figure = new_figure(MAX_WIDTH, sum(heights) + FOOT)
        grid = figure.subplots(len(frames), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, frame in zip(grid, frames, strict=True):
            _panel(axes, frame)
        grid[-1].set_xlabel(AXIS)
        if any(map(len, frames)):
            notes = [note for frame in frames for note in frame["notes"]]
            seeds = [count for frame in frames for count in frame.groupby("method")["seed"].nunique()]
            _notes(figure, seeds, notes, [name for frame in frames for name in frame["dataset"]])
    return figure


def _panel(axes, frame) -> None:
    methods = list(frame["method"].unique())
    reach = max((_draw(axes, row, frame[frame["method"] == method]) for row, method in enumerate(methods)), default=0)
    axes.axvline(0, color="0.3", linewidth=1, zorder=0.9)
    noted = set(frame.loc[frame["notes"].astype(bool), "method"])
    names = [shorten(name, NAME) + MARK * (method in noted) for method, name in short_names(methods).items()]
    axes.set_yticks(range(len(methods)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(1, len(methods)) - 0.5, -0.5)
    axes.grid(False, axis="y")
    if methods:
        _describe(axes, frame, reach)
        axes.margins(x=0.08)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + 0.1 * (high - low))  # room for the last text


def _draw(axes, row: int, seeds) -> float:
    """Returns the largest value that it draws."""
    color, points = colour_of(seeds["method"].iloc[0]), seeds["gain_points"]
    mean, std = points.mean(), points.std(ddof=1)
    whisker = None if math.isnan(std) else std
    below = [row + 0.24] * len(seeds)  # the whisker would hide them
    axes.plot(points, below, "o", color=color, alpha=0.5, markersize=4.5, markeredgewidth=0)
    axes.errorbar([mean], [row], xerr=whisker, fmt="D", color=color, ecolor="0.15", markersize=6, capsize=4)
    text = signed_text(mean, 1) + ("" if whisker is None else f" ± {std:.1f}")
    end = max(points.max(), mean + (whisker or 0))
    look = {"va": "center", "fontweight": "bold", "fontsize": 8.5, "bbox": BOX}
    axes.annotate(text, (end, row), xytext=(7, 0), textcoords="offset points", **look)
    return end


def _describe(axes, frame, reach: float) -> None:
    """The pair, the budget and the accuracies that the gains lie between."""
    first, teacher = frame.iloc[0], frame["teacher_top1_pct"].mean()
    alone = frame.drop_duplicates("seed")["alone_top1_pct"].mean()
    pair = f"{next(filter(None, frame['teacher']), 'no network')} teaches {first['student']}"
    accuracies = f"student alone {alone:.1f} % (line)"
    if not math.isnan(teacher):
        accuracies += f", teacher {teacher:.1f} %"
    if teacher - alone <= NEAR * max(reach, 1.0):
        accuracies += " (dashed)"
        axes.axvline(teacher - alone, zorder=0.9, **TEACHER_LINE)
    head = wrap(f"{first['dataset']}: {pair}, {first['budget']}", TITLE)
    axes.set_title("\n".join([*head, accuracies]), loc="left", fontsize=8.5)


def _notes(figure, seeds: list[int], notes: list[str], datasets: list[str]) -> None:
    counts = f"{min(seeds)}" if len(set(seeds)) == 1 else f"{min(seeds)} to {max(seeds)}"
    note = f"small points: one seed · diamond: mean ± std over {counts} seed{'s' * (max(seeds) > 1)}"
    lines = [f"{note} · grey: a method without a teacher", mark_meaning(notes), evidence_note(datasets)]
    figure.supxlabel("\n".join(filter(None, lines)), fontsize=8, color="0.3")

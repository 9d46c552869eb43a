"""The picture "is the gain real?": a line per pair of equal seed above, what the choice of the epoch adds below."""

import math
from textwrap import wrap

from kdhelpers.display.colours import colour_of
from kdhelpers.display.curves import short_names
from kdhelpers.display.style import MAX_WIDTH, new_figure, styled
from kdhelpers.display.text import evidence_note, mark_meaning

MOST = 10  # methods in the picture; the table has all
LETTERS = 130  # of all names in one line
HALF = 0.26  # of the distance of two methods: from the middle of a pair to its ends
POINT = {"markersize": 4, "markeredgewidth": 0}
LINE = POINT | {"linewidth": 1.3}


def picture(frame):
    """The frame of `noise.frame` as a Figure: of more than MOST methods those of the largest mean gain.

    Above, a line per seed goes from the student alone, left, to the method, right. The band is the mean of the student
    alone ± the noise of one difference. Below, points are validation accuracies of the best epoch minus the last one.
    """
    methods = list(frame["method"].unique())
    shown = {method: frame[frame["method"] == method] for method in methods[:MOST]}
    has_epochs = any(seeds["best_minus_last_points"].notna().any() for seeds in shown.values())
    with styled():
        figure = new_figure(MAX_WIDTH, 6.4 if has_epochs else 4.6)
        ratios = [3, 1.4][: 1 + has_epochs]
        pairs, *epochs = figure.subplots(len(ratios), 1, squeeze=False, sharex=True, height_ratios=ratios)[:, 0]
        _draw_pairs(pairs, shown)
        for axes in epochs:
            _draw_epochs(axes, shown)
        names = [_name(name, shown[method], LETTERS // len(shown)) for method, name in short_names(list(shown)).items()]
        lowest = epochs[-1] if epochs else pairs
        lowest.set_xticks(range(len(shown)), names, fontsize=7.5)
        lowest.set_xlim(-0.5, max(1, len(shown)) - 0.5)
        for axes in (pairs, *epochs):
            axes.grid(False, axis="x")
        if shown:
            _describe(figure, pairs, frame, len(methods) - len(shown))
    return figure


def _draw_pairs(axes, shown: dict) -> None:
    for place, (method, seeds) in enumerate(shown.items()):
        for alone, taught in zip(seeds["alone_top1_pct"], seeds["test_top1_pct"], strict=True):
            axes.plot(
                [place - HALF, place + HALF], [alone, taught], "o-", color=colour_of(method), **POINT, linewidth=1.3
            )
    axes.set_ylabel("test top-1 (%)")


def _draw_epochs(axes, shown: dict) -> None:
    for place, (method, seeds) in enumerate(shown.items()):
        values = seeds["best_minus_last_points"].dropna()
        shifts = [0.08 * (number - (len(values) - 1) / 2) for number in range(len(values))]
        axes.plot([place + shift for shift in shifts], values, "o", color=colour_of(method), **POINT)
        axes.plot([place - HALF, place + HALF], 2 * [values.mean()], color=colour_of(method), linewidth=1.5)
    axes.axhline(0, color="0.3", linewidth=0.8, zorder=0.9)
    axes.set_ylim(-0.05, max(0.5, 1.1 * axes.get_ylim()[1]))
    images = {int(count) for seeds in shown.values() for count in seeds["val_images"]}
    on = f" on {images.pop():,} images" if len(images) == 1 else ""
    axes.set_title(f"the choice of the epoch: best minus last validation accuracy{on}", loc="left", fontsize=8.5)
    axes.set_ylabel("points")


def _name(name: str, seeds, letters: int) -> str:
    above = int((seeds["gain_points"] > 0).sum())
    return "\n".join([*wrap(name, letters, max_lines=3, placeholder="…"), f"{above} of {len(seeds)} up"])


def _describe(figure, axes, frame, left_out: int) -> None:
    first, alone = frame.iloc[0], frame.drop_duplicates("seed")["alone_top1_pct"].mean()
    noise, n = first["noise_points"], first["noise_n"]
    text = f"student alone {alone:.2f} % (line)"
    axes.axhline(alone, color="0.3", linewidth=0.8, zorder=0.8)
    if not math.isnan(noise):
        axes.axhspan(alone - noise, alone + noise, color="0.9", zorder=0.5)
        text += f" ± {noise:.2f} (band): √2 × standard deviation over {n} seeds, the noise of one difference"
    pair = f"{next(filter(None, frame['teacher']), 'no network')} teaches {first['student']}"
    axes.set_title(f"{first['dataset']}: {pair}, {first['budget']}\n{text}", loc="left", fontsize=8.5)
    notes = ["a line per seed: from the student alone, left, to the method, right; up: above the student alone"]
    notes += [f"{left_out} methods of smaller gains are in the table alone"] if left_out else []
    notes += [mark_meaning(frame["notes"]), evidence_note(frame["dataset"])]
    figure.supxlabel("\n".join(filter(None, notes)), fontsize=8, color="0.3")

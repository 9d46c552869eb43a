"""The gain of a run over its placebo: the same run, whose teacher's outputs do not belong to the images."""

import json
import math

import pandas

from kdhelpers import artifacts
from kdhelpers.display.colours import colour_of
from kdhelpers.display.style import new_figure, styled
from kdhelpers.display.text import (
    accuracy_text,
    conditions,
    evidence_note,
    headline,
    mark_meaning,
    paired_text,
    signed_text,
)
from kdhelpers.report.paired import GAIN, canonical, newest, with_gains
from kdhelpers.report.results import results, summary_of
from kdhelpers.report.styling import Table, column_texts, table_of

COLUMNS = ["placebo_gain_points", "placebo_gain_std", "placebo_n"]
BASELINES = {"CE (no teacher)": GAIN}  # what a gain is over -> its columns in `compared`
BASELINES |= {f"placebo {kind}": [f"{kind}_{column}" for column in COLUMNS] for kind in ("shuffled", "mean")}
STRENGTHS = (1.0, 0.55, 0.3)  # of the method's colour, in the order of BASELINES


def placebo_of(frame, kind: str = "shuffled"):
    """The paired gain of each setting of a `results()` frame over its placebo of a kind; indexed by setting, COLUMNS.

    The placebo is the stored setting that differs in `placebo` alone: it has the images, the teacher and the budget of
    its method. placebo_gain_points is the mean difference of test top-1, in percentage points, and placebo_gain_std its
    sample standard deviation (ddof=1, NaN for one seed), over the placebo_n seeds that both have; the newest run of a
    seed counts. Settings without a placebo have NaN, NaN and 0; so do the placebos themselves.
    """
    runs = newest(frame)
    top1 = {name: rows.set_index("seed")["test_top1_pct"].astype(float) for name, rows in runs.groupby("setting")}
    gains = {setting: _gain(own, top1.get(_with_placebo(setting, kind))) for setting, own in top1.items()}
    return pandas.DataFrame.from_dict(gains, orient="index", columns=COLUMNS).rename_axis("setting")


def _with_placebo(setting: str, kind: str) -> str:
    """The setting's placebo as `results` writes settings; "" for a setting that is a placebo itself."""
    fields = json.loads(setting)
    return "" if "placebo" in fields else canonical(fields | {"placebo": kind})


def _gain(own, placebo) -> tuple[float, float, int]:
    paired = pandas.Series(dtype=float) if placebo is None else (own - placebo).dropna()  # aligned on the seed
    return (paired.mean(), paired.std(ddof=1), len(paired)) if len(paired) else (math.nan, math.nan, 0)


def compared(dataset: str, only):
    """`summarize` of the students among the settings of the runs `only`, with the gain over each kind of placebo.

    only: names of stored runs, or what `fit` returned; CE (no teacher) must be one of them, and gains count from it.
    """
    names = [artifacts.original_name(getattr(run, "name", run)) for run in only]
    frame = results(dataset)
    is_chosen = frame["setting"].isin(frame.loc[frame["name"].isin(names), "setting"])
    frame = frame[is_chosen & (frame["role"] == "student")]
    summary = summary_of(with_gains(frame))
    for kind in ("shuffled", "mean"):
        summary = summary.join(placebo_of(frame, kind).add_prefix(f"{kind}_"), on="setting")
    return summary


def table(frame) -> Table:
    """A row per setting of `compared`: test top-1, and the paired gain over the student alone and over each placebo."""
    gains = {f"gain over {name}": column_texts(frame, paired_text, *fields) for name, fields in BASELINES.items()}
    columns = {"method": frame["label"], "test top-1 (%)": [accuracy_text(row) for row in frame.to_dict("records")]}
    notes = [headline(frame), "gains in points", mark_meaning(frame["notes"])]
    return table_of(columns | gains, " · ".join(filter(None, notes)), conditions=" · ".join(conditions(frame)))


def picture(frame):
    """A group of bars per setting of `compared`: its gain over the student alone, and over its placebos if it has any.

    The bar over a placebo is the part of the gain that needs the teacher's knowledge of the image. Lines are the
    standard deviation over seeds.
    """
    gains = frame[frame["gain_points"].notna()]
    with styled():
        figure = new_figure(8.0, 1.3 + 0.5 * max(1, len(gains)))
        axes = figure.subplots()
        for bar, name in enumerate(BASELINES):
            axes.barh(0, 0, color="0.2", alpha=STRENGTHS[bar], label=f"over {name}")  # for the legend alone
        for row, gain in enumerate(gains.to_dict("records")):
            _draw(axes, row, gain)
        axes.set_yticks(range(len(gains)), gains["label"])
        axes.invert_yaxis()
        axes.axvline(0, color="0.3", linewidth=1)
        axes.margins(x=0.12)
        axes.grid(False, axis="y")
        axes.set_xlabel("\n".join(filter(None, ["gain in test accuracy (points)", evidence_note(frame["dataset"])])))
        figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure


def _draw(axes, row: int, gain: dict) -> None:
    """The bars that a row has, around its place."""
    shown = [(bar, *fields) for bar, fields in enumerate(BASELINES.values()) if not math.isnan(gain[fields[0]])]
    for number, (bar, points, std, _) in enumerate(shown):
        place, spread = row + 0.27 * (number - (len(shown) - 1) / 2), 0 if math.isnan(gain[std]) else gain[std]
        look = {"color": colour_of(gain["label"]), "alpha": STRENGTHS[bar]}
        axes.barh(place, gain[points], 0.25, xerr=spread or None, ecolor="0.15", **look)
        _annotate(axes, place, gain[points], spread)


def _annotate(axes, place: float, value: float, reach: float) -> None:
    side = 1 if value >= 0 else -1
    end, align = (value + side * reach, place), "left" if side > 0 else "right"
    axes.annotate(signed_text(value), end, (4 * side, 0), textcoords="offset points", ha=align, va="center", fontsize=8)

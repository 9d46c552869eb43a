"""The gain of a run over its placebo: the same run, whose teacher knows nothing about the single image."""

import json
import math

import pandas

from kdhelpers.report.results import canonical

COLUMNS = ["placebo_gain_points", "placebo_gain_std", "placebo_n"]


def placebo_of(frame, kind: str = "shuffled"):
    """The paired gain of each setting of a `results()` frame over its placebo of a kind; indexed by setting, COLUMNS.

    The placebo is the stored setting that differs in `placebo` alone: it has the images, the teacher and the budget of
    its method. placebo_gain_points is the mean difference of test top-1, in percentage points, and placebo_gain_std its
    sample standard deviation (ddof=1, NaN for one seed), over the placebo_n seeds that both have; the newest run of a
    seed counts. Settings without a placebo have NaN, NaN and 0; so do the placebos themselves.
    """
    tested = frame.dropna(subset=["test_top1_pct"]).sort_values("finished", kind="stable", na_position="first")
    newest = tested.drop_duplicates(["setting", "seed"], keep="last")
    top1 = {name: rows.set_index("seed")["test_top1_pct"].astype(float) for name, rows in newest.groupby("setting")}
    gains = {setting: _gain(own, top1.get(_with_placebo(setting, kind))) for setting, own in top1.items()}
    return pandas.DataFrame.from_dict(gains, orient="index", columns=COLUMNS).rename_axis("setting")


def _with_placebo(setting: str, kind: str) -> str:
    """The setting's placebo as `results` writes settings; "" for a setting that is a placebo itself."""
    fields = json.loads(setting)
    return "" if "placebo" in fields else canonical(fields | {"placebo": kind})


def _gain(own, placebo) -> tuple[float, float, int]:
    paired = pandas.Series(dtype=float) if placebo is None else (own - placebo).dropna()  # aligned on the seed
    return (paired.mean(), paired.std(ddof=1), len(paired)) if len(paired) else (math.nan, math.nan, 0)

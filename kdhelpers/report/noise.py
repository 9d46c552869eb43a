"""Is a gain real? Paired seeds, the noise of the student alone, and what the choice of the epoch adds; from records.

Noise of one difference: sqrt(2) s, with s the sample standard deviation (ddof=1) of the student alone over its seeds.
Two trainings that differ in the seed alone differ so much; it is the root mean square over all pairs of seeds. A mean
over n paired seeds has the noise sqrt(2 / n) s.

Choice of the epoch: the best validation accuracy of a run minus its last one. A figure of the best epoch on the images
it is measured on, as published ones often are, is larger than the last one by about so much. Records have no test
accuracy by epoch, so validation images of the same training stand for test images.
"""

import math

import pandas

from kdhelpers import artifacts
from kdhelpers.display.progress import VALIDATION
from kdhelpers.display.text import evidence_note, gain_text, interval_text, mark_meaning, paired_text
from kdhelpers.report.gains import COLUMNS, paired_runs
from kdhelpers.report.noise_picture import picture
from kdhelpers.report.paired import newest
from kdhelpers.report.results import results
from kdhelpers.report.styling import Table, column_texts, table_of

__all__ = ["frame", "picture", "summary", "table"]
ADDED = ["noise_points", "noise_n", "best_minus_last_points", "alone_best_minus_last_points", "val_images"]


def frame(dataset: str, like: str = ""):
    """The frame of `gains.by_seed` with ADDED: noise_points of one difference, from noise_n seeds of the student alone.

    best_minus_last_points: validation accuracy of the best epoch minus the last one, of the run and of the student
    alone of its seed, on val_images images; NaN without validation images.
    """
    gains = paired_runs(dataset, like)
    if gains.empty:
        return pandas.DataFrame(columns=[*COLUMNS, *ADDED])
    students = newest(results(dataset))
    names = dict(zip(zip(students["setting"], students["seed"], strict=True), students["name"], strict=True))
    alone = [names[key] for key in zip(gains["baseline_setting"], gains["seed"], strict=True)]
    seeds = students.groupby("setting")["test_top1_pct"]
    own, base = ([artifacts.load_record(name) for name in column] for column in (gains["name"], alone))
    return gains[COLUMNS].assign(
        noise_points=math.sqrt(2) * gains["baseline_setting"].map(seeds.std(ddof=1)).astype(float),
        noise_n=gains["baseline_setting"].map(seeds.size()),
        best_minus_last_points=list(map(_best_minus_last, own)),
        alone_best_minus_last_points=list(map(_best_minus_last, base)),
        val_images=[(record.get("data") or {}).get("val", 0) for record in own],
    )


def _best_minus_last(record: dict) -> float:
    accuracies = [row[VALIDATION] for row in record.get("history") or [] if row.get(VALIDATION) is not None]
    return max(accuracies) - accuracies[-1] if accuracies else math.nan


def summary(frame):
    """A row per method of `frame`: gain with 95 % interval, how many seeds gain, the noise of that mean, the epochs.

    The interval is Student's t of the paired gains: mean ± t std / sqrt(n), with n - 1 degrees of freedom; NaN for one.
    """
    rows = [_row(method, seeds) for method, seeds in frame.groupby("method", sort=False)]
    columns = "method gain_points gain_std_points gain_n gain_low_points gain_high_points seeds_above_0".split()
    return pandas.DataFrame(rows, columns=[*columns, "noise_points", "best_minus_last_points", "notes"])


def _row(method: str, seeds) -> dict:
    from scipy import stats

    gains, n = seeds["gain_points"], len(seeds)
    half = stats.t.ppf(0.975, n - 1) * gains.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return {
        "method": method,
        "gain_points": gains.mean(),
        "gain_std_points": gains.std(ddof=1),
        "gain_n": n,
        "gain_low_points": gains.mean() - half,
        "gain_high_points": gains.mean() + half,
        "seeds_above_0": int((gains > 0).sum()),
        "noise_points": seeds["noise_points"].iloc[0] / math.sqrt(n),
        "best_minus_last_points": seeds["best_minus_last_points"].mean(),
        "notes": "; ".join(filter(None, seeds["notes"].unique())),
    }


def table(frame) -> Table:
    """`summary` as a table; its conditions have the formulas."""
    rows = summary(frame)
    columns = {
        "method": rows["method"],
        "gain, paired (points)": column_texts(rows, paired_text, "gain_points", "gain_std_points", "gain_n"),
        "95 % interval": column_texts(rows, _interval, "gain_low_points", "gain_high_points"),
        "seeds above 0": [f"{above} of {n}" for above, n in zip(rows["seeds_above_0"], rows["gain_n"], strict=True)],
        "noise of that mean (points)": column_texts(rows, _size, "noise_points"),
        "best minus last epoch (points)": column_texts(rows, gain_text, "best_minus_last_points"),
    }
    conditions = [
        "95 % interval: of the mean gain over training seeds, Student's t with n - 1 degrees of freedom",
        "noise: sqrt(2 / n) s; s is the standard deviation of the student alone over seeds, n counts the paired seeds",
        "best minus last epoch: validation accuracy of the best epoch minus the last one, mean over seeds; a figure of "
        "the best epoch on the reported images themselves is larger by about so much",
        "records have no test accuracy by epoch",
    ]
    return table_of(columns, _caption(frame), conditions=" · ".join(conditions))


def _caption(frame) -> str:
    if frame.empty:
        return "no stored student has a student without a teacher of its own budget and seed"
    first = frame.iloc[0]
    teacher = next(filter(None, frame["teacher"]), "no network")
    pair = f"{first['dataset']}: {teacher} teaches {first['student']}, {first['budget']}"
    noise = f"noise from the student alone, n = {first['noise_n']}"
    return " · ".join(filter(None, [pair, noise, mark_meaning(frame["notes"]), evidence_note(frame["dataset"])]))


def _interval(low: float, high: float) -> str:
    return "–" if math.isnan(low) else interval_text(low, high)


def _size(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"

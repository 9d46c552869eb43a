"""What a teacher adds: the gain of each method over the student alone, seed by seed, as a frame and as a picture."""

import math

import pandas

from kdhelpers.display.style import PALETTE, TEACHER_LINE, new_figure, styled
from kdhelpers.display.text import MARK, evidence_note, mark_meaning
from kdhelpers.report.cohort import short_labels
from kdhelpers.report.paired import has_no_teacher, newest, with_gains
from kdhelpers.report.results import results

COLUMNS = "dataset teacher student budget method seed test_top1_pct alone_top1_pct teacher_top1_pct".split()
COLUMNS += "gain_points notes".split()


def by_seed(dataset: str, like: str = ""):
    """A row per stored student and seed of one budget: its test top-1, that of the student alone, and the difference.

    All students have one architecture, budget and teacher, or no teacher. `like` names a stored student of the wanted
    budget; without it, the budget is the one with most methods, then with fewest settings. Methods are sorted by their
    mean gain. The frame is empty if no student has a baseline of its own seed.
    """
    chosen = cohort_of(results(dataset), dataset, like)
    return pandas.DataFrame(columns=COLUMNS) if chosen.empty else _gains(chosen)


def cohort_of(frame, dataset: str, like: str = ""):
    """The rows of a `results()` frame that `by_seed` compares; of a seed that is stored twice the newest."""
    students = newest(frame[frame["role"] == "student"])
    cohorts = [cohort for cohort in _cohorts(students) if not like or like in set(cohort["name"])]
    if like and not cohorts:
        raise ValueError(f"like = {like}: not a student with a baseline on {dataset}; name another, or none")
    most = lambda cohort: (cohort["method"].nunique(), -cohort["setting"].nunique())  # noqa: E731
    return max(cohorts, key=most, default=frame[:0])


def _cohorts(students) -> list:
    """The students of each budget and teacher that include a student trained without one."""
    cohorts = [
        group[group["teacher_sha256"].isna() | (group["teacher_sha256"] == sha256)]
        for _, group in students.groupby("budget_key", sort=False)
        for sha256 in group["teacher_sha256"].dropna().unique()
    ]
    return [cohort for cohort in cohorts if cohort["run"].map(has_no_teacher).any()]


def _gains(cohort):
    gains = with_gains(cohort).assign(
        student=cohort["model"],
        teacher=cohort["teacher_model"].fillna(""),
        budget=[f"{run['epochs']} epochs, batch {run['batch_size']}" for run in cohort["run"]],
        method=cohort["setting"].map(short_labels(cohort.drop_duplicates("setting"))),
    )
    paired = gains.rename(columns={"baseline_top1_pct": "alone_top1_pct"}).dropna(subset=["gain_points"])
    mean = paired.groupby("method")["gain_points"].transform("mean")
    order = paired.assign(mean=mean).sort_values(["mean", "method", "seed"], ascending=[False, True, True])
    return order[COLUMNS].reset_index(drop=True)


def picture(frame):
    """The frame of `by_seed` as a Figure: a row per method, a point per seed, the mean and ± standard deviation."""
    methods = list(frame["method"].unique())
    with styled():
        width = 5.675 + 0.075 * max(map(len, methods), default=15)
        figure = new_figure(width, 1.5 + 0.34 * max(1, len(methods)))
        axes = figure.subplots()
        for row, method in enumerate(methods):
            _draw(axes, row, frame[frame["method"] == method])
        axes.axvline(0, color="0.3", linewidth=1, zorder=0.9)
        noted = set(frame.loc[frame["notes"].astype(bool), "method"])
        axes.set_yticks(range(len(methods)), [method + MARK * (method in noted) for method in methods])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(max(1, len(methods)) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.set_xlabel("gain in test accuracy over the student alone (percentage points)")
        if methods:
            _describe(axes, frame)
    return figure


def _draw(axes, row: int, seeds) -> None:
    color = PALETTE[0] if seeds["teacher"].any() else "0.5"
    mean, std = seeds["gain_points"].mean(), seeds["gain_points"].std(ddof=1)
    whisker = None if math.isnan(std) else std
    points = {"color": color, "alpha": 0.5, "markersize": 4.5, "markeredgewidth": 0}
    axes.plot(
        seeds["gain_points"], [row + 0.24] * len(seeds), "o", **points
    )  # below the whisker, which would hide them
    axes.errorbar([mean], [row], xerr=whisker, fmt="D", color=color, ecolor="0.15", markersize=6, capsize=4)
    text = f"{mean:+.1f}" + ("" if whisker is None else f" ± {std:.1f}")
    end = max(seeds["gain_points"].max(), mean + (whisker or 0))
    axes.annotate(text, (end, row), xytext=(7, 0), textcoords="offset points", va="center", fontweight="bold")


def _describe(axes, frame) -> None:
    """The pair, the budget and the accuracies that the gains lie between."""
    first, counts = frame.iloc[0], sorted(frame.groupby("method")["seed"].nunique().unique())
    alone, teacher = frame.drop_duplicates("seed")["alone_top1_pct"].mean(), frame["teacher_top1_pct"].mean()
    teacher_model = next(filter(None, frame["teacher"]), "")
    axes.axvline(teacher - alone, zorder=0.9, **TEACHER_LINE)
    for place, text in ((0, f"student alone\n{alone:.1f} %"), (teacher - alone, f"teacher\n{teacher:.1f} %")):
        axes.annotate(text, (place, 1), (0, 3), ("data", "axes fraction"), "offset points", ha="center", fontsize=8)
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    seeds += " seeds" if counts[-1] > 1 else " seed"
    title = f"{first['dataset']}: {teacher_model} teaches {first['student']}, {first['budget']}"
    axes.set_title(title, loc="left", pad=28)
    note = f"small points: one seed · diamond: mean ± std over {seeds} · grey: a method without a teacher"
    notes = [note, mark_meaning(frame["notes"]), evidence_note(frame["dataset"])]
    axes.figure.supxlabel("\n".join(filter(None, notes)), fontsize=8, color="0.3")

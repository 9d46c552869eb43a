"""What a teacher adds: the gain of each method over the student alone, seed by seed, as a frame and as a picture."""

import pandas

from kdhelpers.display.text import MARK, paired_text
from kdhelpers.report.cohort import short_labels
from kdhelpers.report.gains_picture import pages, picture
from kdhelpers.report.labels import distinctions
from kdhelpers.report.paired import has_no_teacher, newest, with_gains
from kdhelpers.report.results import METHOD_FIELDS, results

__all__ = ["answer", "by_cohort", "by_seed", "cohort_of", "paired_runs", "picture", "pictures"]

COLUMNS = "dataset teacher student budget method seed test_top1_pct alone_top1_pct teacher_top1_pct".split()
COLUMNS += "gain_points notes".split()
ALIKE = ("model", "teacher_model", "epochs", "batch_size")  # what a panel's title has of a cohort


def by_seed(dataset: str, like: str = ""):
    """A row per stored student and seed of one budget: its test top-1, that of the student alone, and the difference.

    All students have one architecture, budget and teacher, or no teacher. `like` names a stored student of the wanted
    budget; without it, the budget is the one with most methods, then with fewest settings. Students by other optimisers
    whose gain is over the student alone of that budget are added. Methods are sorted by their mean gain. The frame is
    empty if no student has a baseline of its own seed.
    """
    return paired_runs(dataset, like)[COLUMNS]


def answer(frame) -> str:
    """The method of `by_seed` with the largest mean gain, as a sentence in Markdown."""
    best = frame[frame["method"] == frame["method"].iloc[0]]
    gain = best["gain_points"]
    name = best["method"].iloc[0] + MARK * bool(best["notes"].any())
    verb = "has the largest mean gain" if gain.mean() > 0 else "loses least, no method gains"
    return f"{name} {verb}: **{paired_text(gain.mean(), gain.std(ddof=1), len(gain))}**, in points."


def paired_runs(dataset: str, like: str = ""):
    """`by_seed` with the other columns of `results`, and those of `paired.with_gains`."""
    stored = results(dataset)
    chosen = cohort_of(stored, dataset, like)
    return pandas.DataFrame(columns=COLUMNS) if chosen.empty else _gains(_with_other_optimizers(stored, chosen))


def by_cohort(dataset: str) -> list:
    """A frame as of `by_seed` for each pair and budget of the data set, that of `by_seed` first, then the largest.

    Budgets that read the same have what distinguishes them: the teacher's name, an option of the network, ...
    """
    stored = results(dataset)
    cohorts = _cohorts(newest(stored[stored["role"] == "student"]))
    facts = [_facts(cohort) for cohort in cohorts]
    frames = []
    for cohort, own in zip(cohorts, facts, strict=True):
        frame = _gains(_with_other_optimizers(stored, cohort))[COLUMNS]
        alike = [other for other in facts if all(other[field] == own[field] for field in ALIKE)]
        budget = ", ".join([_budget(own), *distinctions(own, alike)])
        frames.append(frame.assign(budget=budget.replace("teacher teacher_", "teacher_")))
    size = lambda frame: (frame["method"].nunique(), len(frame))  # noqa: E731
    first = by_seed(dataset)["gain_points"].tolist()
    found = sorted((frame for frame in frames if len(frame)), key=size, reverse=True)
    return sorted(found, key=lambda frame: frame["gain_points"].tolist() != first)


def pictures(dataset: str) -> dict:
    """Name -> (figure, its data): the gains of `by_seed`, then those of the other pairs and budgets, split if long."""
    first, *others = by_cohort(dataset) or [pandas.DataFrame(columns=COLUMNS)]
    figures = {f"results_gains_{dataset}": (picture(first), by_seed(dataset))} if len(first) else {}
    for number, page in enumerate(pages(others), 1):
        data = pandas.concat([frame.assign(comparison=place) for place, frame in enumerate(page, 1)])
        figures[f"results_other_gains_{dataset}" + f"_{number}" * (number > 1)] = picture(*page), data
    return figures


def cohort_of(frame, dataset: str, like: str = ""):
    """The rows of a `results()` frame that `by_seed` compares; of a seed that is stored twice the newest.

    Empty if `like` has no student of its budget to compare with. Raises ValueError if it is not a stored student.
    """
    students = newest(frame[frame["role"] == "student"])
    cohorts = [cohort for cohort in _cohorts(students) if not like or like in set(cohort["name"])]
    if like and like not in set(students["name"]):
        raise ValueError(f"like = {like}: not a student that is stored on {dataset}; name another, or none")
    most = lambda cohort: (cohort["method"].nunique(), -cohort["setting"].nunique())  # noqa: E731
    return max(cohorts, key=most, default=frame[:0])


def _facts(cohort) -> dict:
    """The budget of a cohort, and its teacher."""
    budget = {field: value for field, value in cohort["run"].iloc[0].items() if field not in METHOD_FIELDS}
    taught = cohort[cohort["teacher_sha256"].notna()].iloc[0]
    return budget | {"teacher": taught["teacher"], "teacher_model": taught["teacher_model"]}


def _budget(run: dict) -> str:
    return f"{run['epochs']} epochs, batch {run['batch_size']}"


def _cohorts(students) -> list:
    """The students of each budget and teacher that include a student trained without one."""
    cohorts = [
        group[group["teacher_sha256"].isna() | (group["teacher_sha256"] == sha256)]
        for _, group in students.groupby("budget_key", sort=False)
        for sha256 in group["teacher_sha256"].dropna().unique()
    ]
    return [cohort for cohort in cohorts if cohort["run"].map(has_no_teacher).any()]


def _with_other_optimizers(stored, cohort):
    """The cohort, and the students of its teacher by other optimisers that have their gain over its student alone."""
    runs, alone = with_gains(stored), set(cohort.loc[cohort["run"].map(has_no_teacher).astype(bool), "setting"])
    added = runs["baseline_setting"].isin(alone) & runs["teacher_sha256"].isin(cohort["teacher_sha256"].dropna())
    return runs[runs["name"].isin(cohort["name"]) | (added & runs["baseline"].astype(bool))]


def _gains(cohort):
    gains = cohort.assign(
        student=cohort["model"],
        teacher=cohort["teacher_model"].fillna(""),
        budget=list(map(_budget, cohort["run"])),
        method=cohort["setting"].map(short_labels(cohort.drop_duplicates("setting"))),
    )
    paired = gains.rename(columns={"baseline_top1_pct": "alone_top1_pct"}).dropna(subset=["gain_points"])
    mean = paired.groupby("method")["gain_points"].transform("mean")
    order = paired.assign(mean=mean).sort_values(["mean", "method", "seed"], ascending=[False, True, True])
    return order.reset_index(drop=True)

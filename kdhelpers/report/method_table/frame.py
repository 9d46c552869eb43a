"""The stored methods of one teacher, student, data set and budget as a frame, with their published figures."""

import json
import math

import pandas

from kdhelpers.methods import METHODS
from kdhelpers.report.beside import settings
from kdhelpers.report.cohort import short_labels
from kdhelpers.report.gains import cohort_of
from kdhelpers.report.method_table.cost import COLUMNS as COSTS
from kdhelpers.report.paired import GAIN, has_no_teacher, with_gains
from kdhelpers.report.placebo import placebo_of
from kdhelpers.report.results import results
from kdhelpers.zoo.benchmark import DATASET, figures_of, matches, nearness, published_pairs

NO_TEACHER, CONTROL, MAPS, EMBEDDINGS, LOGITS = "no teacher", "control", "feature maps", "embeddings", "logits"
OTHER_VIEWS = " (other augmentation)"
MEANS = ["seconds_per_epoch", "peak_memory_mib", "extra_parameters"]
COLUMNS = "method family dataset teacher student budget epochs views n test_top1_pct test_top1_std_pct".split()
COLUMNS += [*GAIN, *"placebo_gain_points placebo_gain_std placebo_n".split()]
COLUMNS += [
    "teacher_top1_pct",
    *MEANS,
    "lockstep",
    *"published_pct published_gain_points published_budget published_note".split(),
]
COLUMNS += "published_selection published_pair notes setting run name".split()
COLUMNS += COSTS  # NaN until `with_costs` measures them


def frame(dataset: str, like: str = "", published_pair: str = ""):
    """A row per stored setting of one pair and budget, best first; columns COLUMNS, NaN and "" where unknown.

    like: a stored student of the wanted pair and budget; without it the one with most methods, as in `gains.by_seed`.
    published_pair: teacher and student of the CRD benchmark, whose published figures stand in the rows of their
    methods; by default the students' own pair, if it is one. Gains are in percentage points, paired by seed:
    paired_gain over the student without a teacher, placebo_gain over the method's placebo with shuffled outputs,
    published_gain over the published student. A method that is stored with another augmentation alone, such as one that
    needs a strong view, has its gain over the student alone of that augmentation. The frame is empty without a student
    to compare with. Raises ValueError for an unknown `like` or pair.
    """
    stored = results(dataset)
    cohort = cohort_of(stored, dataset, like)
    if cohort["teacher_model"].isna().all():
        return pandas.DataFrame(columns=COLUMNS)
    own = cohort["budget_key"].iloc[0]
    cohort = pandas.concat([cohort, _untrained(stored, cohort), _other_views(stored, cohort)])
    firsts = cohort.drop_duplicates("setting", keep="last").set_index("setting", drop=False)
    summary = _with_facts(cohort, firsts)
    summary = summary[(summary["budget_key"] == own) | ~summary["run"].map(has_no_teacher).astype(bool)]
    teacher = firsts["teacher_model"].dropna().iloc[0]
    figures = _figures(published_pair, (teacher, firsts["model"].iloc[0]))
    labels = summary["setting"].map(short_labels(firsts[firsts["setting"].isin(summary["setting"])]))
    summary = summary.assign(
        method=labels.where(summary["budget_key"] == own, labels + OTHER_VIEWS),
        family=summary["run"].map(family),
        student=summary["model"],
        epochs=[run.get("epochs", math.nan) for run in summary["run"]],
        views=summary["run"].map(_views),
        teacher=teacher,
        teacher_top1_pct=next(iter(firsts["teacher_top1_pct"].dropna()), math.nan),
    ).reset_index(drop=True)
    printed = pandas.DataFrame([_published(run, figures) for run in summary["run"]])
    return pandas.concat([summary, printed], axis=1).reindex(columns=COLUMNS)


def _with_facts(cohort, firsts):
    """`settings` of the cohort with the means of the records, the gain over the placebo and a record's name."""
    means = cohort.groupby("setting")[MEANS].mean().astype(float).fillna({"extra_parameters": 0})
    summary = settings(with_gains(cohort)).drop(columns=MEANS, errors="ignore").join(means, on="setting")
    return summary.join(placebo_of(cohort), on="setting").join(firsts["name"], on="setting")


def _untrained(stored, cohort):
    """The students of untrained teachers of the same architecture and budget, which are controls."""
    same = stored["teacher_model"].isin(cohort["teacher_model"].dropna())
    same &= stored["budget_key"].isin(cohort["budget_key"])
    is_control = stored["run"].map(lambda run: bool(run.get("untrained_teacher"))).astype(bool)
    return stored[same & is_control & ~stored["name"].isin(cohort["name"])]


def _other_views(stored, cohort):
    """The students of methods that the cohort lacks, with another augmentation, and the students alone of that."""
    budgets = stored["budget_key"].map(_without_augmentation)
    same = budgets.isin(cohort["budget_key"].map(_without_augmentation))
    same &= ~stored["budget_key"].isin(cohort["budget_key"])
    taught = same & stored["teacher_sha256"].isin(cohort["teacher_sha256"].dropna())
    taught &= ~stored["method"].isin(cohort["method"])
    alone = same & stored["run"].map(has_no_teacher).astype(bool)
    return stored[taught | (alone & stored["budget_key"].isin(stored.loc[taught, "budget_key"]))]


def _without_augmentation(budget: str) -> str:
    return json.dumps({name: value for name, value in json.loads(budget).items() if name != "augmentation"})


def family(run: dict) -> str:
    """What the method reads of its teacher: the deepest of logits, embeddings and feature maps; or why it has none."""
    method = METHODS[run["method"]](**_present(run)) if run["method"] in METHODS else None
    if run.get("placebo") or run.get("untrained_teacher"):
        return CONTROL
    if method is None:
        return ""
    if not method.needs_teacher:
        return NO_TEACHER
    if set(method.reads) - {"logits", "embedding"}:
        return MAPS
    return EMBEDDINGS if "embedding" in method.reads else LOGITS


def _views(run: dict) -> float:
    """The augmented images that a step makes of one image."""
    method = METHODS[run["method"]](**_present(run)) if run["method"] in METHODS else None
    return math.nan if method is None else method.views + bool(method.weak_view)


def _present(run: dict) -> dict:
    retired = METHODS[run["method"]].retired
    return {name: value for name, value in run["hyperparameters"].items() if name not in retired}


def _figures(pair_text: str, own: tuple[str, str]) -> list[dict]:
    """The figures of the pair, for any data set; none if no pair is named and the students' own is not published."""
    pair = tuple(pair_text.replace(">", " ").split()) or own
    if pair not in published_pairs():
        if pair_text:
            known = "; ".join(" ".join(known) for known in published_pairs())
            raise ValueError(f"published_pair = {pair_text}: not a pair of the CRD benchmark; known: {known}")
        return []
    return [figure | {"dataset": ""} for figure in figures_of(pair, DATASET)]


def _published(run: dict, figures: list[dict]) -> dict:
    """The figure that names most of the run's values; controls have none."""
    unknown = dict.fromkeys(["published_note", "published_selection"], "")
    fitting = [figure for figure in figures if figure["role"] != "teacher" and matches(run, figure)]
    if family(run) == CONTROL or not fitting:
        return unknown
    figure = max(fitting, key=lambda one: (len(one["hyperparameters"]), nearness(run, one)))
    base = next((one["test_top1_pct"] for one in figures if one["role"] == "baseline"), math.nan)
    return {
        "published_pct": figure["test_top1_pct"],
        "published_gain_points": figure["test_top1_pct"] - base,
        "published_budget": figure["budget"],
        "published_note": figure["note"],
        "published_selection": figure["selection"],
        "published_pair": f"{figure['teacher']} → {figure['student']}",
    }

"""The CRD benchmark's pairs next to our runs: a column of the table is a pair at one budget and of one teacher."""

import pandas

from kdhelpers.report.beside import COLUMNS as FIELDS
from kdhelpers.report.beside import beside, settings
from kdhelpers.report.labels import distinctions
from kdhelpers.report.paired import with_gains
from kdhelpers.report.results import METHOD_FIELDS, results
from kdhelpers.zoo.benchmark import DATASET, figures_of, published_pairs

FAMILIES = ("wrn", "resnet", "vgg")  # both networks of a pair of the same style are of one of them
SAME_STYLE, OTHER_STYLE, OUR_OWN = "same style", "different style", "pairs of our own"
COLUMNS = ["dataset", "teacher", "student", "budget", *FIELDS]


def beside_ours(dataset: str | None = None) -> dict:
    """Group of pairs -> DataFrame with a row per method and column of the table; empty groups are left out.

    The groups are the benchmark's pairs of same and of different style, on cifar100 whether we ran them or not, then
    the other pairs of our stored runs. Columns are dataset, teacher, student, budget and `beside.COLUMNS`; gains are
    in points over our student trained without a teacher.
    """
    groups: dict[str, list[dict]] = {SAME_STYLE: [], OTHER_STYLE: [], OUR_OWN: []}
    columns = _columns(dataset)
    if dataset in (None, DATASET):
        for pair in published_pairs():
            groups[_style(*pair)] += _rows((DATASET, *pair), columns.pop((DATASET, *pair)))
    groups[OUR_OWN] = [row for place, parts in columns.items() for row in _rows(place, parts) if row["n"]]
    return {group: pandas.DataFrame(rows, columns=COLUMNS) for group, rows in groups.items() if rows}


def _style(teacher: str, student: str) -> str:
    alike = any(teacher.startswith(family) and student.startswith(family) for family in FAMILIES)
    return SAME_STYLE if alike else OTHER_STYLE


def _columns(dataset: str | None) -> dict[tuple[str, str, str], list]:
    """(data set, teacher, student) -> `settings` of one teacher and budget, with the students without a teacher.

    Each published pair has at least one column on its data set, if that is wanted: of the student alone, or empty.
    """
    summary = settings(with_gains(results(dataset)))
    alone = summary[summary["teacher_sha256"].isna()]
    columns: dict[tuple[str, str, str], list] = {}
    for (_, budget), distilled in summary.groupby(["teacher_sha256", "budget_key"], sort=False):
        first = distilled.iloc[0]
        teacher = first["teacher"] if pandas.isna(first["teacher_model"]) else first["teacher_model"]
        column = pandas.concat([distilled, alone[alone["budget_key"] == budget]])
        columns.setdefault((first["dataset"], teacher, first["model"]), []).append(column)
    for pair in published_pairs() if dataset in (None, DATASET) else []:
        baselines = alone[(alone["dataset"] == DATASET) & (alone["model"] == pair[1])]
        budgets = [column for _, column in baselines.groupby("budget_key", sort=False)]
        columns.setdefault((DATASET, *pair), budgets or [summary.iloc[:0]])
    return columns


def _rows(place: tuple[str, str, str], columns: list) -> list[dict]:
    dataset, teacher, student = place
    head = {"dataset": dataset, "teacher": teacher, "student": student}
    figures = figures_of((teacher, student), dataset)
    budgets = [""] if columns[0].empty else _budgets([column.iloc[0] for column in columns])
    return [
        head | {"budget": budget} | row
        for budget, column in zip(budgets, columns, strict=True)
        for row in beside(column.sort_values("test_top1_pct", ascending=False, kind="stable"), figures)
    ]


def _budgets(firsts: list) -> list[str]:
    """The budget of each column, given its first row; if several read the same, with what differs: a rate, ..."""
    weights: dict[str, set] = {}  # of teachers of one name: one that was trained again is another
    for first in firsts:
        weights.setdefault(first["teacher"], set()).add(first["teacher_sha256"])
    facts = []
    for first in firsts:
        digest = f" ({first['teacher_sha256'][:8]})" if len(weights[first["teacher"]]) > 1 else ""
        budget = {field: value for field, value in first["run"].items() if field not in METHOD_FIELDS}
        facts.append(budget | {"teacher": first["teacher"] + digest or "none"})
    texts = []
    for first, own in zip(firsts, facts, strict=True):
        alike = [other for row, other in zip(firsts, facts, strict=True) if row["budget"] == first["budget"]]
        texts.append(", ".join([first["budget"], *distinctions(own, alike)]).replace("teacher teacher_", "teacher_"))
    return texts

"""Published figures, as printed: `published.csv`, a row per figure, and which of our runs is of which row.

Studies: supcrd and conkd_lion; crd_benchmark is Tian et al., Contrastive Representation Distillation, ICLR 2020
(teacher, student, KD, FitNet, CRD, CRD+KD); Fu et al., CoCoRD, BMVC 2023; Zhao et al., Decoupled Knowledge
Distillation, CVPR 2022; Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024 (+LS).
"""

import csv
import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from kdhelpers.nearest import check_known

FIGURES = files("kdhelpers.zoo") / "published.csv"  # also inside a wheel
STUDY, DATASET = "crd_benchmark", "cifar100"
BASELINE, REFERENCE = "student", "KD"  # labels of the rows that bars and arrows start from


@cache
def published(study: str) -> tuple[dict, ...]:
    """The figures of a study in its order; a field that the study leaves open is empty.

    teacher, student: architectures. label, role (teacher, baseline, student), method, optimizer, dataset, image_size.
    hyperparameters identify the row: `true` means more than 0, `false` means 0. recipe: its other published values, if
    they are the same for all pairs. selection: the epoch kept, last or test (the best on the test images).
    test_top1_pct: NaN if the study printed none; printed: its digits. note.

    Raises ValueError that lists the studies for an unknown one.
    """
    with FIGURES.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    check_known("study", study, [row["study"] for row in rows])
    return tuple(_parsed(row) for row in rows if row["study"] == study)


def _parsed(row: dict) -> dict:
    printed = row["test_top1_pct"]
    options = {field: json.loads(row[field] or "{}") for field in ("hyperparameters", "recipe")}
    return row | options | {"test_top1_pct": float(printed or "nan"), "printed": printed}


def published_pairs() -> list[tuple[str, str]]:
    """(teacher, student) of the CRD benchmark; the first seven are of the same style, the others of different style."""
    return list(dict.fromkeys((row["teacher"], row["student"]) for row in published(STUDY)))


def published_teachers() -> dict[str, float]:
    """Architecture -> test top-1 in percent of the CRD benchmark's teachers."""
    return {row["teacher"]: row["test_top1_pct"] for row in published(STUDY) if row["role"] == "teacher"}


def figures_of(pair: tuple[str, str], dataset: str) -> list[dict]:
    """The CRD benchmark's rows for a pair; without figures if it has none for this pair and data set."""
    first, *_ = published_pairs()
    own = dataset == DATASET and pair in published_pairs()
    rows = [row for row in published(STUDY) if (row["teacher"], row["student"]) == (pair if own else first)]
    blank = dict.fromkeys(("printed", "selection", "note")) | {"dataset": "", "test_top1_pct": float("nan")}
    return rows if own else [row | blank for row in rows]


def matches(run: dict, figure: dict) -> bool:
    """Whether a stored run has a figure's method and all values that identify its row; a control has none."""
    options, is_control = run["hyperparameters"], run.get("placebo") or run.get("untrained_teacher")
    return (
        run["method"] == figure["method"]
        and not is_control
        and all(run[field] == figure[field] for field in ("optimizer", "dataset") if figure[field])
        and all(
            bool(options.get(name)) == value if isinstance(value, bool) else options.get(name) == value
            for name, value in figure["hyperparameters"].items()
        )
    )


def nearness(run: dict, figure: dict) -> int:
    """How many values of the figure's recipe the run has."""
    return sum(run["hyperparameters"].get(name) == value for name, value in figure["recipe"].items())


def in_order(labels: Iterable[str]) -> list[str]:
    """The labels without repetitions: the CRD benchmark's rows in their order, then the others as they come."""
    order = list(dict.fromkeys(row["label"] for row in published(STUDY)))
    return sorted(dict.fromkeys(labels), key=lambda label: order.index(label) if label in order else len(order))

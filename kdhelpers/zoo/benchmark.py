"""Published figures, as printed: `published.csv`, a row per figure, and which of our runs is of which row.

Studies: supcrd, conkd_lion, and crd_benchmark. The rows of the CRD benchmark are from Tian et al., Contrastive
Representation Distillation, ICLR 2020 (teacher, student, KD, FitNet, CRD, AT, SP, VID, RKD, PKT, NST) and its README
(CRD+KD); the papers of `training/settings.yaml`; Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024
(+LS); and SuperMix, CVPR 2021. Its hyperparameters are in `training/settings.yaml`.
"""

import csv
import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from kdhelpers.nearest import check_known
from kdhelpers.training.published import published_settings

FIGURES = files("kdhelpers.zoo") / "published.csv"  # also inside a wheel
STUDY, DATASET = "crd_benchmark", "cifar100"
BASELINE, REFERENCE = "student", "KD"  # labels of the rows that bars and arrows start from


@cache
def published(study: str) -> tuple[dict, ...]:
    """The figures of a study in its order; a field that the study leaves open is empty.

    teacher, student: architectures. label, role (teacher, baseline, student), optimizer, dataset, image_size.
    method: its name in METHODS; empty if none of ours is it. hyperparameters identify the row: `true` means more than
    0, `false` means 0. recipe: its other published values that are the same for all pairs; by_pair: those of this pair.
    settings: "published", "open" (not published for this pair) or empty. selection: the epoch kept, last or test (the
    best on the test images). budget: epochs times the images that a step makes of one (views, or mixed images),
    relative to 240 epochs of one; NaN if unknown. MLKD's 480 epochs of two views are 4, CoCoRD's 240 of three views 3.
    test_top1_pct: NaN if the study printed none; printed: its digits. note.

    Raises ValueError that lists the studies for an unknown one.
    """
    with FIGURES.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    check_known("study", study, [row["study"] for row in rows])
    return tuple(_parsed(row) for row in rows if row["study"] == study)


def _parsed(row: dict) -> dict:
    figures = {name: float(row[name] or "nan") for name in ("test_top1_pct", "budget")}
    return row | _settings(row) | figures | {"printed": row["test_top1_pct"]}


def _settings(row: dict) -> dict:
    """Method and hyperparameters of a row: those of `settings.yaml` in the CRD benchmark, else its own."""
    known = published_settings().get(row["label"]) if row["study"] == STUDY else None
    if known is None:
        own = json.loads(row["hyperparameters"] or "{}")
        return {"hyperparameters": own, "recipe": {}, "by_pair": {}, "settings": ""}
    pair = f"{row['teacher']}>{row['student']}"
    is_known = pair in known.known_pairs and known.source(pair) == pair
    return {
        "method": known.method,
        "hyperparameters": known.hyperparameters,
        "recipe": known.recipe,
        "by_pair": known.by_pair(pair),
        "settings": "published" if is_known else "open",
    }


def published_pairs() -> list[tuple[str, str]]:
    """(teacher, student) of the CRD benchmark; the first seven are of the same style, the others of different style."""
    return list(dict.fromkeys((row["teacher"], row["student"]) for row in published(STUDY)))


def published_teachers() -> dict[str, float]:
    """Architecture -> test top-1 in percent of the CRD benchmark's teachers."""
    return {row["teacher"]: row["test_top1_pct"] for row in published(STUDY) if row["role"] == "teacher"}


def figures_of(pair: tuple[str, str], dataset: str) -> list[dict]:
    """The CRD benchmark's rows for a pair; without figures if it has none for this pair and data set.

    A row that none of our methods is, and that has no figure, is left out.
    """
    first, *_ = published_pairs()
    own = dataset == DATASET and pair in published_pairs()
    rows = [row for row in published(STUDY) if (row["teacher"], row["student"]) == (pair if own else first)]
    blank = dict.fromkeys(("printed", "selection", "note", "settings"))
    blank |= {"dataset": "", "test_top1_pct": float("nan"), "budget": float("nan")}
    rows = rows if own else [row | blank for row in rows]
    return [row for row in rows if row["method"] or row["printed"] or row["role"] == "teacher"]


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
    """How many of the figure's published values the run has."""
    values = figure["recipe"] | figure["by_pair"]
    return sum(run["hyperparameters"].get(name) == value for name, value in values.items())


def in_order(labels: Iterable[str]) -> list[str]:
    """The labels without repetitions: the CRD benchmark's rows in their order, then the others as they come."""
    order = list(dict.fromkeys(row["label"] for row in published(STUDY)))
    return sorted(dict.fromkeys(labels), key=lambda label: order.index(label) if label in order else len(order))

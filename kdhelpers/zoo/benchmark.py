"""The CRD benchmark's figures as they were printed: `benchmark.csv`, a row per method and a column per pair.

Sources: Tian et al., Contrastive Representation Distillation, ICLR 2020 (teacher, student, KD, FitNet, CRD, CRD+KD);
Fu et al., CoCoRD, BMVC 2023; Zhao et al., Decoupled Knowledge Distillation, CVPR 2022; Sun et al., Logit
Standardization in Knowledge Distillation, CVPR 2024 (LS).
"""

import csv
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

FIGURES = Path(__file__).with_name("benchmark.csv")
DATASET = "cifar100"
BASE, REFERENCE = "student", "KD"  # rows that gains and arrows are over


@cache
def printed_rows() -> tuple[dict, ...]:
    """The rows: label, method, hyperparameters, selection (the epoch kept: last, or test, the best on the test images;
    "" where it is not said), note; keys with a ">" are pairs, their values as printed, "" where nothing was.

    `hyperparameters` tell a row from others of its method: `true` means more than 0, `false` means 0. `recipe` has the
    values that it was published with, as far as they are the same for all pairs.
    """
    with FIGURES.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    parsed = ("hyperparameters", "recipe")
    return tuple(row | {field: json.loads(row[field] or "{}") for field in parsed} for row in rows)


def published_pairs() -> list[tuple[str, str]]:
    """(teacher, student) of each pair; the first seven are of the same style, the others of different style."""
    return [tuple(key.split(">")) for key in printed_rows()[0] if ">" in key]


def published_teachers() -> dict[str, float]:
    """Architecture -> test top-1 in percent of the benchmark's teachers."""
    return {pair.partition(">")[0]: float(figure) for pair, figure in printed_rows()[0].items() if ">" in pair}


def is_of_row(run: dict, row: dict) -> bool:
    """Whether a run, as records hold it, is of the printed row."""
    known = run["hyperparameters"]
    return run["method"] == row["method"] and all(
        bool(known.get(name)) == value if isinstance(value, bool) else known.get(name) == value
        for name, value in row["hyperparameters"].items()
    )


def nearness(run: dict, row: dict) -> int:
    """How many of the row's published values the run has."""
    return sum(run["hyperparameters"].get(name) == value for name, value in row["recipe"].items())


def in_order(methods: Iterable[str]) -> list[str]:
    """Each name once: the printed rows in their order, then others as they come."""
    order = {row["label"]: place for place, row in enumerate(printed_rows())}
    return sorted(dict.fromkeys(methods), key=lambda method: order.get(method, len(order)))

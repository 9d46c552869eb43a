"""The published figures: what the papers print, their budgets, and that each can be run."""

import math

from kdhelpers import METHODS
from kdhelpers.models import build_model
from kdhelpers.zoo import benchmark


def test_the_printed_figures_are_those_of_the_papers():
    """Spot checks in every row and both halves, and the sums, so that no figure slips."""
    rows = benchmark.published(benchmark.STUDY)
    printed = {(row["label"], row["teacher"], row["student"]): row["printed"] for row in rows}
    labels = benchmark.in_order(row["label"] for row in rows)
    assert labels == list(SUMS)
    assert len(rows) == len(printed) == 13 * len(labels)
    first = [printed[label, "wrn_40_2", "wrn_16_2"] for label in labels]
    assert first[:11] == "75.61 73.26 74.92 73.58 75.48 75.64 75.48 75.90 76.24 76.11 76.39".split()
    assert first[11:19] == "74.08 73.83 74.11 73.35 74.54 73.68 75.64 75.57".split()
    assert first[19:25] == "76.12 75.51 76.23 76.37 76.38 75.45".split()
    assert first[25:] == ["", "", "", "", "", "", "76.63", "76.95", "76.58", "76.81"]
    last = [printed[label, "wrn_40_2", "shufflenetv1"] for label in labels]
    assert last[:11] == ["75.61", "70.50", "74.83", "73.73", "76.05", "76.27", "76.42", "76.56", "76.70", "", ""]
    assert last[11:19] == "73.32 74.52 73.61 72.21 73.89 74.89".split() + ["", ""]
    assert last[19:] == "77.14 76.40 75.39 75.42 76.95".split() + [*[""] * 5, "77.21", "77.12", "", "", "", ""]
    assert printed["DKD", "resnet50_crd", "vgg8"] == "75.34"
    assert printed["CoCoRD+KD", "resnet32x4", "shufflenetv2"] == "77.39"
    sums = {label: sum(float(row["printed"] or 0) for row in rows if row["label"] == label) for label in labels}
    assert {label: round(total, 2) for label, total in sums.items()} == SUMS
    rules = {label: {row["selection"] for row in rows if row["label"] == label} for label in labels}
    kept_last = "KD FitNet CRD CRD+KD AT SP VID RKD PKT NST".split()
    unsaid = "teacher student ICKD ICKD+KD DIST TTM WTTM CTKD RLD WSLD".split()
    of = {**dict.fromkeys(kept_last, "last"), **dict.fromkeys(unsaid, "")}
    assert rules == {label: {of.get(label, "test")} for label in labels}
    assert {row["note"] for row in rows if row["label"] == "DKD"} == {DKD_NOTE}


DKD_NOTE = "mean of 5 runs; resnet110>resnet20 from LS's table and resnet50>vgg8 from SDD's"


SUMS = {
    "teacher": 994.01,
    "student": 909.74,
    "KD": 941.06,
    "FitNet": 918.45,
    "CRD": 955.12,
    "CRD+KD": 958.21,
    "CoCoRD": 962.17,
    "CoCoRD+KD": 964.72,
    "DKD": 964.81,
    "KD+LS": 731.73,
    "DKD+LS": 739.36,
    "AT": 912.4,
    "SP": 934.56,
    "VID": 928.7,
    "RKD": 917.78,
    "PKT": 937.05,
    "NST": 919.93,
    "ICKD": 515.97,
    "ICKD+KD": 517.27,
    "ReviewKD": 820.09,
    "DIST": 958.59,
    "TTM": 957.54,
    "WTTM": 959.08,
    "LumiNet": 823.06,
    "CTKD": 724.53,
    "RLD": 376.01,
    "WSLD": 222.32,
    "CAT-KD": 376.41,
    "SimKD": 454.12,
    "SD-KD": 591.92,
    "SD-DKD": 524.68,
    "MLKD": 742.48,
    "MLKD+LS": 745.82,
    "MixUp+KD (SuperMix)": 525.98,
    "CutMix+KD (SuperMix)": 526.03,
}


def test_the_published_budgets_count_epochs_and_views():
    rows = benchmark.published(benchmark.STUDY)
    larger = {(row["label"], row["student"], row["budget"]) for row in rows if row["budget"] > 1 and row["printed"]}
    by_label = {label: {budget for name, _, budget in larger if name == label} for label, _, _ in larger}
    super_mix = {f"{name}+KD (SuperMix)": {600 * 2 / 240} for name in ("MixUp", "CutMix")}
    assert by_label == super_mix | {
        "CoCoRD": {3.0},
        "CoCoRD+KD": {3.0},
        "MLKD": {480 * 2 / 240, 960 * 2 / 240},
        "MLKD+LS": {4.0, 8.0},
    }
    assert {student for _, student, budget in larger if budget == 8} == {"shufflenetv2"}
    assert all(math.isnan(row["budget"]) == (row["role"] == "teacher") for row in rows)


def test_every_printed_row_and_pair_can_be_run():
    assert len(benchmark.published_pairs()) == 13
    for name in {name for pair in benchmark.published_pairs() for name in pair}:
        build_model(name, 100)
    rows = [row for row in benchmark.published(benchmark.STUDY) if row["role"] != "teacher"]
    assert {row["label"] for row in rows if not row["method"]} == {
        f"{mix}+KD (SuperMix)" for mix in ("MixUp", "CutMix")
    }
    for row in rows:
        if row["method"]:
            modes = {name: value for name, value in row["hyperparameters"].items() if not isinstance(value, bool)}
            METHODS[row["method"]](**modes | row["recipe"] | row["by_pair"])

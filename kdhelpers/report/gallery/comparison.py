"""The rows of the comparison table: a row per setting, with the texts that are shown and the numbers that sort."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from kdhelpers.display.text import accuracy_text, magnitude_text, pace_text
from kdhelpers.report.gallery.overview import Comparison
from kdhelpers.report.gallery.settings import Setting

FILTERS = {"dataset": "data set", "pair": "pair", "method": "method", "budget": "budget", "profile": "profile"}


class Cell(NamedTuple):
    """`value` sorts: a number, or a text; None is last."""

    head: str
    text: str
    value: Any = None


def table(settings: Sequence[Setting], comparisons: Sequence[Comparison]) -> list[dict]:
    """A row per setting: `setting`, whether it is the `best` of a comparison, `cells` and the texts of FILTERS."""
    best = {comparison.best.slug for comparison in comparisons}
    return [
        {"setting": setting, "best": setting.slug in best, "cells": _cells(setting), "filters": _filters(setting)}
        for setting in settings
    ]


def _filters(setting: Setting) -> dict[str, str]:
    return {
        "dataset": str(setting.row["dataset"]),
        "pair": setting.pair,
        "method": setting.method,
        "budget": setting.budget,
        "profile": "\n".join(setting.profiles),
        "notes": "with notes" if setting.row["notes"] else "without notes",
    }


def _cells(setting: Setting) -> list[Cell]:
    row = setting.row
    share = row["gap_closed_pct"]
    return [
        Cell("test top-1, %", accuracy_text(row), row["test_top1_pct"]),
        Cell("gain, points", _gain(setting), _value(row["gain_points"])),
        Cell("data", str(row["dataset"])),
        Cell("pair", setting.pair),
        Cell("budget", setting.budget),
        Cell("n", str(row["n"]), row["n"]),
        Cell("gap closed", "–" if math.isnan(share) else f"{share:.0f} %", _value(share)),
        Cell("parameters", magnitude_text(row["parameters"]), _value(row["parameters"])),
        Cell("MACs", magnitude_text(row["macs"]), _value(row["macs"])),
        Cell("s / epoch", pace_text(row["seconds_per_epoch"], row["lockstep"]), _value(row["seconds_per_epoch"])),
        Cell("selection", str(row["selection"] or "–")),
        Cell("profile", ", ".join(setting.profiles) or "–"),
    ]


def _gain(setting: Setting) -> str:
    return f"{setting.gain} over {setting.baseline}" if setting.row["baseline"] else setting.gain


def _value(number: float) -> float | None:
    return None if number is None or math.isnan(number) else float(number)

"""The gain of every run over its baseline of the same seed: the one gain of all tables, pictures and sentences."""

import json
import math
from collections.abc import Callable, Sequence

from kdhelpers.report.labels import method_title, optimizer_title

# What may differ from a baseline by another optimiser: its rates and its schedule have no meaning for the other one.
OPTIMIZER_FIELDS = "optimizer lr weight_decay optimizer_options schedule schedule_options warmup_epochs".split()
GAIN = ["gain_points", "gain_std_points", "gain_n"]


def canonical(value: dict) -> str:
    """The JSON by which settings are compared."""
    return json.dumps(value, sort_keys=True)


def has_no_teacher(run: dict) -> bool:
    """Whether a run is the usual baseline: a student trained without a teacher, by cross-entropy."""
    return run.get("role") == "student" and run.get("method") == "si"


def newest(frame):
    """The tested runs of a `results()` frame, of a seed that is stored twice the newest, oldest first."""
    tested = frame.dropna(subset=["test_top1_pct"]).sort_values("finished", kind="stable", na_position="first")
    return tested.drop_duplicates(["setting", "seed"], keep="last")


def with_gains(frame, is_baseline: Callable[[dict], bool] = has_no_teacher):
    """The `newest` runs, and baseline, baseline_setting, baseline_top1_pct, gain_points: "" and NaN without a baseline.

    The baseline of a student is the setting of its `budget_key` whose run `is_baseline`; the gain is over the run of
    the same seed, in percentage points, and `baseline` is empty. If that setting is not stored, the baseline is one of
    the same data, network, epochs, batch and selection by another optimiser, which `baseline` names: the one with most
    shared seeds, then the most accurate. A baseline has no gain.
    """
    runs = newest(frame)
    chosen = _baselines(runs, is_baseline)
    keys = list(zip(runs["setting"], runs["seed"], strict=True))
    top1 = dict(zip(keys, runs["test_top1_pct"].astype(float), strict=True))
    own = [chosen.get(setting, ("", "")) for setting, _ in keys]
    alone = [top1.get((setting, seed), math.nan) for (setting, _), (_, seed) in zip(own, keys, strict=True)]
    settings, names = ([pair[place] for pair in own] for place in (0, 1))
    runs = runs.assign(baseline=names, baseline_setting=settings, baseline_top1_pct=alone)
    return runs.assign(gain_points=runs["test_top1_pct"].astype(float) - runs["baseline_top1_pct"].astype(float))


def _baselines(runs, is_baseline) -> dict[str, tuple[str, str]]:
    """Setting of a student -> the setting of its baseline, and the baseline's name if it is of another optimiser."""
    students = by_setting(runs[runs["role"] == "student"]).values()
    alone = {group[0]["budget_key"]: group for group in students if is_baseline(group[0]["run"])}
    others: dict[str, list] = {}
    for budget, group in alone.items():
        others.setdefault(without_optimizer(budget), []).append(group)
    chosen = {}
    for group in students:
        own = alone.get(group[0]["budget_key"])
        found = own or _of_another_optimizer(group, others)
        if found and found is not group:
            name = "" if own else _named(found[0]["run"], group[0]["run"])
            chosen[group[0]["setting"]] = found[0]["setting"], name
    return chosen


def without_optimizer(budget_key: str) -> str:
    """What budgets by several optimisers have in common."""
    return canonical({field: value for field, value in json.loads(budget_key).items() if field not in OPTIMIZER_FIELDS})


def _of_another_optimizer(group: list[dict], others: dict[str, list]) -> list[dict] | None:
    """A run at another rate of the same optimiser has no gain: the rate is then a part of the budget."""
    optimizer, seeds = group[0]["run"].get("optimizer"), _seeds(group)
    fitting = [
        other
        for other in others.get(without_optimizer(group[0]["budget_key"]), [])
        if other[0]["run"].get("optimizer") != optimizer and seeds & _seeds(other)
    ]
    order = lambda other: (len(seeds & _seeds(other)), mean(numbers(other, "test_top1_pct")))  # noqa: E731
    return max(fitting, key=order, default=None)


def _seeds(group: list[dict]) -> set:
    return {run["seed"] for run in group}


def _named(baseline: dict, run: dict) -> str:
    """`CE (no teacher) by SGD`, with its schedule if that differs too."""
    schedules = (baseline.get("schedule"), run.get("schedule"))
    title = f"{method_title(baseline['method'])} by {optimizer_title(baseline)}"
    return title + f", {schedules[0]}" * (len(set(schedules)) > 1)


def by_setting(runs) -> dict[str, list[dict]]:
    """setting -> its runs as plain dicts: a frame per setting would take seconds for 1,000 runs."""
    groups: dict[str, list[dict]] = {}
    for run in runs.to_dict("records"):
        groups.setdefault(run["setting"], []).append(run)
    return groups


def numbers(runs: Sequence[dict], column: str) -> list[float]:
    """The numbers of a column, without None and NaN."""
    values = [float(run[column]) for run in runs if run[column] is not None]
    return [value for value in values if not math.isnan(value)]


def mean(values: Sequence[float]) -> float:
    """NaN without a value."""
    return sum(values) / len(values) if values else math.nan


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation (ddof=1); NaN below two values."""
    if len(values) < 2:
        return math.nan
    centre = mean(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))


def mean_gain(runs: Sequence[dict]) -> dict:
    """GAIN and the baseline's name over the runs of one setting, of `by_setting`; gain_n counts shared seeds.

    `gap_closed_pct` is the gain's share of (teacher - baseline), NaN unless that is positive.
    """
    gains = numbers(runs, "gain_points")
    paired = [run for run in runs if not math.isnan(run["gain_points"])]
    gain, gap = mean(gains), mean(numbers(runs, "teacher_top1_pct")) - mean(numbers(paired, "baseline_top1_pct"))
    return {
        "gain_points": gain,
        "gain_std_points": deviation(gains),
        "gain_n": len(gains) or None,
        "gap_closed_pct": 100 * gain / gap if gap > 0 else None,
        "baseline": runs[0]["baseline"],
    }

"""What a study has found: a row per trial, a row per method, and the chosen settings."""

import math

import pandas

from kdhelpers.artifacts import records
from kdhelpers.display.text import paired_text, spread_text
from kdhelpers.report.labels import run_title
from kdhelpers.training.run import Run, distinctive
from kdhelpers.tuning.space import with_values
from kdhelpers.tuning.study import Study
from kdhelpers.tuning.trials import values_text

TRIAL_COLUMNS = "method key trial status val_top1_pct best_so_far_pct values error train_seconds".split()
SUMMARY_COLUMNS = "method trials failed dimensions start_val_pct best_val_pct median_val_pct std_val_pct".split()
SUMMARY_COLUMNS += (
    "best_trial best_setting test_n test_top1_pct test_std_pct gain_n gain_points gain_std_points".split()
)
HEADS = "method trials failed dimensions first best median spread".split()


def trial_frame(study: Study):
    """A row per trial that has ended, columns TRIAL_COLUMNS; accuracies are of held-out images, NaN of a failure."""
    rows = []
    for key, label in labels(study).items():
        best = math.nan
        for record in study.ended(key):
            trial, metrics = record["trial"], record.get("metrics") or {}
            top1 = metrics.get("val_top1_pct", math.nan)
            best = max((value for value in (best, top1) if not math.isnan(value)), default=math.nan)
            setting = values_text(trial["values"])
            row = label, key, trial["number"], record["status"], top1, best, setting, record.get("error") or ""
            rows.append((*row, metrics.get("train_seconds", math.nan)))
    return pandas.DataFrame(rows, columns=TRIAL_COLUMNS)


def labels(study: Study) -> dict[str, str]:
    """Key -> the method's title; of methods with one title their keys."""
    titles = {key: run_title(run.model_dump()) for key, run in study.runs.items()}
    return {key: key if list(titles.values()).count(title) > 1 else title for key, title in titles.items()}


def best_record(study: Study, key: str) -> dict | None:
    """The trial of the highest held-out accuracy, of equals the first; None if all have failed."""
    finished = [record for record in study.ended(key) if record["status"] == "finished"]
    return max(finished, key=lambda record: record["metrics"]["val_top1_pct"], default=None)


def chosen_runs(study: Study) -> dict[str, Run]:
    """Key -> the run at the method's best setting; methods all of whose trials failed are left out."""
    best = {key: best_record(study, key) for key in study.runs}
    return {key: with_values(study.runs[key], found["trial"]["values"]) for key, found in best.items() if found}


def summary_frame(study: Study):
    """A row per method, columns SUMMARY_COLUMNS.

    The figures of test images are those of stored runs at the chosen settings, which the study's profile trains. The
    gain is over the chosen setting of the student without a teacher, paired by seed.
    """
    tested, trials = _tested(study), trial_frame(study)
    alone = next((tested[key] for key, run in study.runs.items() if run.method == "si" and key in tested), {})
    rows = []
    for key, label in labels(study).items():
        own, best = trials[trials["key"] == key], best_record(study, key)
        top1 = own["val_top1_pct"]
        start = top1[own["trial"] == 0]
        is_alone = study.runs[key].method == "si"
        gains = [] if is_alone else [top1 - alone[seed] for seed, top1 in tested.get(key, {}).items() if seed in alone]
        found = (best["trial"]["number"], values_text(best["trial"]["values"])) if best else (math.nan, "")
        counts = len(own), int((own["status"] == "failed").sum()), len(study.spaces[key])
        held_out = start.max(), top1.max(), top1.median(), top1.std()
        rows.append((label, *counts, *held_out, *found, *_spread(tested.get(key, {}).values()), *_spread(gains)))
    return pandas.DataFrame(rows, columns=SUMMARY_COLUMNS)


def _tested(study: Study) -> dict[str, dict[int, float]]:
    """Key -> seed -> test accuracy of the stored runs at the chosen settings, with the teacher of the trials."""
    found: dict[str, dict[int, float]] = {}
    chosen = chosen_runs(study)
    wanted = {key: (_setting(run.model_dump()), _teacher(best_record(study, key))) for key, run in chosen.items()}
    for record in records():
        if record["status"] == "finished" and record.get("run"):
            setting = _setting(record["run"]), _teacher(record)
            for key in [key for key, facts in wanted.items() if facts == setting]:
                found.setdefault(key, {})[record["run"].get("seed", 0)] = record["metrics"]["test_top1_pct"]
    return found


def _setting(run: dict) -> dict:
    return {field: value for field, value in distinctive(run).items() if field != "seed"}


def _teacher(record: dict) -> str | None:
    return (record.get("teacher") or {}).get("sha256")


def _spread(values) -> tuple[int, float, float]:
    series = pandas.Series(list(values), dtype=float)
    return len(series), series.mean(), series.std()


def summary_rows(summary) -> list[tuple]:
    """The summary as texts, a head first; columns of test images only if a chosen setting has been tested."""
    has_tests = bool(summary["test_n"].sum())
    rows = [(*HEADS, *["test top-1", "gain"] * has_tests, "best setting")]
    for row in summary.to_dict("records"):
        held_out = (row[f"{name}_val_pct"] for name in ("start", "best", "median", "std"))
        texts = ("–" if math.isnan(value) else f"{value:.2f}" for value in held_out)
        tests = (
            spread_text(row["test_top1_pct"], row["test_std_pct"], row["test_n"]),
            paired_text(row["gain_points"], row["gain_std_points"], row["gain_n"]),
        )
        counts = (row[name] for name in ("method", "trials", "failed", "dimensions"))
        rows.append((*counts, *texts, *(tests if has_tests else ()), row["best_setting"] or "all trials failed"))
    return rows

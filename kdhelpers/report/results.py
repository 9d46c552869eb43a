"""Tables over the stored result records: a row per run, then a row per setting with mean and spread over seeds."""

import math
from collections.abc import Callable

from kdhelpers import artifacts
from kdhelpers.report.labels import default_hyperparameters, distinct_labels, record_label, row_names
from kdhelpers.report.paired import (
    by_setting,
    canonical,
    deviation,
    has_no_teacher,
    mean,
    mean_gain,
    newest,
    numbers,
    with_gains,
)
from kdhelpers.training.run import distinctive

NAME_FIELDS = ("seed", "name", "teacher", "start_from")  # hashes identify the weights
# A student's baseline is the run that differs from it in these alone.
METHOD_FIELDS = ("method", "hyperparameters", "placebo", "teacher_sha256")
METRICS = "test_top1_pct test_top5_pct test_nll test_ece_pct val_top1_pct train_seconds seconds_per_epoch".split()
METRICS += "images_per_second peak_memory_mib lockstep".split()
RUN_COLUMNS = "name role dataset model method label teacher seed epochs batch_size selection precision device".split()
RUN_COLUMNS += METRICS
RUN_COLUMNS += (
    "teacher_model parameters extra_parameters macs teacher_top1_pct finished identity notes teacher_notes".split()
)
RUN_COLUMNS += "teacher_sha256 run setting budget_key".split()
SUMMARY_COLUMNS = "dataset role model label teacher n test_top1_pct test_top1_std_pct gain_n gain_points".split()
SUMMARY_COLUMNS += "gain_std_points baseline gap_closed_pct parameters macs seconds_per_epoch".split()
SUMMARY_COLUMNS += "lockstep selection budget device notes setting row".split()
MAX_CURVES = 21  # lines that colour and dash can distinguish in a picture


def results(dataset: str | None = None):
    """A DataFrame with one row per finished record (of `dataset`, or of all), columns `RUN_COLUMNS`; NaN where missing.

    Runs with the same `setting` are repetitions with other seeds; runs with the same `budget_key` are compared fairly:
    their settings differ only in METHOD_FIELDS. Both are canonical JSON. `run` is a dict: the whole stored run, with
    the hashes that the setting has.
    """
    import pandas

    rows = [_row(record) for record in artifacts.records() if record.get("status") == "finished" and record.get("run")]
    frame = pandas.DataFrame(rows, columns=RUN_COLUMNS)
    return frame if dataset is None else frame[frame["dataset"] == dataset].reset_index(drop=True)


def _row(record: dict) -> dict:
    run, teacher, environment = (record.get(part) or {} for part in ("run", "teacher", "environment"))
    values = {**run, **(record.get("metrics") or {}), **(record.get("model") or {}), **environment}
    setting = _setting(record)
    options = default_hyperparameters(run.get("method")) | (run.get("hyperparameters") or {})
    fields = {field: value for field, value in run.items() if field not in NAME_FIELDS and value not in (None, "")}
    return {column: values.get(column) for column in RUN_COLUMNS} | {
        "name": record.get("name"),
        "model": run.get("model"),
        "label": record_label(record),
        "teacher": teacher.get("name") or run.get("teacher") or "",
        "device": "CPU" if environment.get("device") == "cpu" else environment.get("device_name") or "unknown device",
        "teacher_top1_pct": teacher.get("test_top1_pct"),
        "teacher_model": teacher.get("model"),
        "identity": record.get("identity"),
        "notes": "; ".join(record.get("notes") or []),
        "teacher_notes": "; ".join(teacher.get("notes") or []),
        "teacher_sha256": teacher.get("sha256"),
        "run": fields | {"hyperparameters": options} | _precision(record) | _hashes(record) | _control(teacher),
        "setting": canonical(setting),
        "budget_key": canonical({field: value for field, value in setting.items() if field not in METHOD_FIELDS}),
    }


def _setting(record: dict) -> dict:
    """What repetitions of a run have in common: the settings without the seed, the images and the weights."""
    settings = {field: value for field, value in distinctive(record["run"]).items() if field != "seed"}
    return settings | _precision(record) | _hashes(record)


def _precision(record: dict) -> dict:
    """The precision that a run had: `auto` takes bf16 on one machine and fp32 on another, and their gains differ."""
    had = (record.get("environment") or {}).get("precision")
    return {"precision": had} if had else {}


def _hashes(record: dict) -> dict:
    data, teacher, start = (record.get(part) or {} for part in ("data", "teacher", "start"))
    hashes = {"data_hash": data.get("hash"), "teacher_sha256": teacher.get("sha256")}
    hashes |= {"start_sha256": start["sha256"]} if start.get("sha256") else {}
    return hashes | ({"origin": record.get("identity")} if "origin" in record else {})  # made elsewhere


def _control(teacher: dict) -> dict:
    return {"untrained_teacher": True} if teacher.get("untrained") else {}


def summarize(frame, is_baseline: Callable[[dict], bool] = has_no_teacher):
    """One row per setting of a `results()` frame, columns `SUMMARY_COLUMNS`; the teachers of a data set come first.

    n counts seeds: a seed that is stored twice counts once, its newest record. Mean and sample standard deviation
    (ddof=1, NaN when n is 1) are in percent. `gain_points`, the mean of the gains of `paired.with_gains` in percentage
    points, and its standard deviation `gain_std_points` are over the `gain_n` seeds that setting and baseline share.
    `baseline` names a baseline by another optimiser; it is empty for that of the own budget. `gap_closed_pct` is the
    gain's share of (teacher - baseline), NaN unless that is positive.
    """
    return summary_of(with_gains(frame, is_baseline))


def summary_of(runs):
    """`summarize` of runs that have their gains: a frame of `with_gains`, or some of its rows."""
    import pandas

    rows = [_spread(group) | mean_gain(group) for group in by_setting(runs).values()]
    summary = pandas.DataFrame(rows, columns=SUMMARY_COLUMNS)
    summary["label"] = distinct_labels(rows)
    optional = ["gain_n", "gap_closed_pct"]
    summary[optional] = summary[optional].astype(float)
    best_first = summary.sort_values("test_top1_pct", ascending=False)
    teachers_first = {"by": ["dataset", "role", "model"], "ascending": [True, False, True]}
    ordered = best_first.sort_values(**teachers_first, kind="stable", ignore_index=True)
    return ordered.assign(row=row_names(ordered))


def _spread(group: list[dict]) -> dict:
    first, top1 = group[0], numbers(group, "test_top1_pct")
    common = "dataset role model label teacher selection parameters macs run setting".split()
    devices = {" ".join(str(run[name]) for name in ("device", "precision") if run[name]) for run in group}
    return {
        **{name: first[name] for name in common},
        "n": len(group),
        "test_top1_pct": mean(top1),
        "test_top1_std_pct": deviation(top1),
        "seconds_per_epoch": mean(numbers(group, "seconds_per_epoch")),
        "lockstep": max([1.0, *numbers(group, "lockstep")]),
        "budget": _budget(first["epochs"], first["batch_size"]),
        "device": ", ".join(sorted(devices)),
        "notes": "; ".join(dict.fromkeys(run["notes"] for run in group if run["notes"])),
    }


def _budget(epochs: float | None, batch_size: float | None) -> str:
    """Whole numbers, which are floats in a frame with weights made elsewhere: those have neither."""
    made_here = epochs is not None and not math.isnan(epochs)
    return f"{epochs:.0f} epochs, batch {batch_size:.0f}" if made_here else "made elsewhere"


def histories(dataset: str | None = None) -> dict[str, dict[str, list[dict]]]:
    """Data set -> name of a setting -> its history, each number the mean over the seeds that the name counts.

    A data set with more than MAX_CURVES settings has a key per network instead: cifar100_resnet8. Weights trained
    elsewhere have no history and are left out.
    """
    frame = results(dataset)
    stored = {record["name"]: record.get("history") or [] for record in artifacts.records()}
    runs = newest(frame[frame["name"].map(lambda name: bool(stored[name])).astype(bool)])
    trained = summarize(runs)
    means: dict[str, dict[str, list[dict]]] = {}
    for name, settings in trained.groupby("dataset", sort=False):
        split = settings.groupby("model", sort=False) if len(settings) > MAX_CURVES else [("", settings)]
        for model, group in split:
            curves = means[f"{name}_{model}" if model else name] = {}
            for label, setting in zip(row_names(group), group["setting"], strict=True):
                own = [stored[run] for run in runs.loc[runs["setting"] == setting, "name"]]
                curves[label] = [_mean_row(rows) for rows in zip(*own, strict=False)]
    return means


def _mean_row(rows: tuple[dict, ...]) -> dict:
    common = [key for key in rows[0] if all(isinstance(row.get(key), (int, float)) for row in rows)]
    return {key: sum(row[key] for row in rows) / len(rows) for key in common}

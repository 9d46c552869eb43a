"""Tables over the stored result records: one row per run, then one row per setting with mean and spread over seeds."""

import inspect
import json
import math

from kdhelpers import artifacts

SYMBOLS = {"temperature": "T", "alpha": "α", "beta": "β", "lam": "λ", "smoothing": "ε"}
# A student's baseline is the run that differs from it in these alone.
METHOD_FIELDS = ("method", "hyperparameters", "teacher_sha256")
METRICS = (
    "test_top1_pct",
    "test_top5_pct",
    "test_nll",
    "test_ece_pct",
    "val_top1_pct",
    "train_seconds",
    "seconds_per_epoch",
    "images_per_second",
    "peak_memory_mib",
    "lockstep",
)
RUN_COLUMNS = (
    "name",
    "role",
    "dataset",
    "model",
    "method",
    "label",
    "teacher",
    "seed",
    "epochs",
    "batch_size",
    "selection",
    "precision",
    "device",
    *METRICS,
    "teacher_model",
    "parameters",
    "macs",
    "teacher_top1_pct",
    "finished",
    "identity",
    "notes",
    "teacher_notes",
    "setting",
)
SUMMARY_COLUMNS = (
    "dataset",
    "role",
    "model",
    "label",
    "teacher",
    "n",
    "test_top1_pct",
    "test_top1_std_pct",
    "gain_points",
    "paired_n",
    "paired_gain_points",
    "paired_gain_std_points",
    "gap_closed_pct",
    "parameters",
    "macs",
    "seconds_per_epoch",
    "lockstep",
    "selection",
    "budget",
    "device",
    "notes",
    "setting",
    "row",
)
MAX_CURVES = 21  # lines of a picture by colour and dash
SHOWN = ("dataset", "role", "model", "selection", "epochs", "batch_size")  # what a summary has columns for


def results(dataset: str | None = None):
    """A DataFrame with one row per finished record (of `dataset`, or of all), columns `RUN_COLUMNS`; NaN where missing.

    `setting` is the canonical JSON of what makes runs repetitions of one another: the Run without seed and name, the
    images' hash and the sha256 of the teacher's weights.
    """
    import pandas

    rows = [_row(record) for record in artifacts.records() if record.get("status") == "finished" and record.get("run")]
    frame = pandas.DataFrame(rows, columns=list(RUN_COLUMNS))
    return frame if dataset is None else frame[frame["dataset"] == dataset].reset_index(drop=True)


def _row(record: dict) -> dict:
    run, teacher, environment = (record.get(part) or {} for part in ("run", "teacher", "environment"))
    known = {**run, **(record.get("metrics") or {}), **(record.get("model") or {}), **environment}
    # A field that is None counts as absent, as it is in records older than the field; weights are known by their hash.
    spelled = ("seed", "name", "teacher", "start_from")
    setting = {field: value for field, value in run.items() if field not in spelled and value is not None}
    start = (record.get("start") or {}).get("sha256")
    return {column: known.get(column) for column in RUN_COLUMNS} | {
        "name": record.get("name"),
        "model": run.get("model"),
        "label": method_label(run),
        "teacher": teacher.get("name") or run.get("teacher") or "",
        "device": "CPU" if environment.get("device") == "cpu" else environment.get("device_name") or "unknown device",
        "teacher_top1_pct": teacher.get("test_top1_pct"),
        "teacher_model": teacher.get("model"),
        "identity": record.get("identity"),
        "notes": "; ".join(record.get("notes") or []),
        "teacher_notes": "; ".join(teacher.get("notes") or []),
        "setting": _canonical(
            {
                **setting,
                "data_hash": (record.get("data") or {}).get("hash"),
                "teacher_sha256": teacher.get("sha256"),
                **({"start_sha256": start} if start else {}),
            }
        ),
    }


def _canonical(value: dict) -> str:
    return json.dumps(value, sort_keys=True)


def method_label(run: dict) -> str:
    """How tables name a run's method: `teacher`, `SI`, `LM (T=2.0)`; hyperparameters at their default are left out."""
    if run.get("role") == "teacher":
        return "teacher"
    from kdhelpers.methods import METHODS

    name = run.get("method") or "?"
    method = METHODS.get(name)  # None for a record of a method that is no longer registered
    defaults = inspect.signature(method).parameters if method else {}
    chosen = [
        f"{SYMBOLS.get(field, field)}={value}"
        for field, value in (run.get("hyperparameters") or {}).items()
        if field not in defaults or defaults[field].default != value
    ]
    title = method_title(name)
    return f"{title} ({', '.join(chosen)})" if chosen else title


def method_title(name: str) -> str:
    """The method class's own `title`, where it has one, else its registered name in capitals."""
    from kdhelpers.methods import METHODS

    return getattr(METHODS.get(name), "title", name.upper())


def summarize(frame):
    """One row per setting of a `results()` frame, columns `SUMMARY_COLUMNS`; the teachers of a data set come first.

    n counts seeds: a seed that is stored twice counts once, its newest record. Mean and sample standard deviation
    (ddof=1, NaN when n is 1) are in percent, gains in percentage points over the independent student: the setting with
    method "si" and role "student" that agrees in everything but method, hyperparameters and teacher. `gain_points` is
    the difference of the means; `paired_gain_points` and its standard deviation are over the `paired_n` seeds that both
    have. `gap_closed_pct` is the gain's share of (teacher - independent student), NaN unless that is positive.
    """
    import pandas

    tested = frame.dropna(subset=["test_top1_pct"]).sort_values("finished", kind="stable", na_position="first")
    newest = tested.drop_duplicates(["setting", "seed"], keep="last")
    groups = {setting: group.set_index("seed") for setting, group in newest.groupby("setting", sort=False)}
    baselines = {budget_key(setting): group for setting, group in groups.items() if _is_independent_student(group)}
    rows = []
    for setting, group in groups.items():
        row = _spread(setting, group)
        if row["role"] == "student" and not _is_independent_student(group):
            row |= _gains(group, baselines.get(budget_key(setting)))
        rows.append(row)
    summary = pandas.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    summary["label"] = _distinct_labels(rows)
    best_first = summary.sort_values("test_top1_pct", ascending=False)
    teachers_first = {"by": ["dataset", "role", "model"], "ascending": [True, False, True]}
    ordered = best_first.sort_values(**teachers_first, kind="stable", ignore_index=True)
    return ordered.assign(row=row_names(ordered))


def _is_independent_student(group) -> bool:
    return group["role"].iloc[0] == "student" and group["method"].iloc[0] == "si"


def budget_key(setting: str) -> str:
    """What runs share that are compared fairly: their `setting` without method, hyperparameters and teacher."""
    return _canonical({field: value for field, value in json.loads(setting).items() if field not in METHOD_FIELDS})


def _spread(setting: str, group) -> dict:
    first, top1 = group.iloc[0], group["test_top1_pct"].astype(float)
    return {
        **first[["dataset", "role", "model", "label", "teacher", "selection", "parameters", "macs", "notes"]],
        "n": len(group),
        "test_top1_pct": top1.mean(),
        "test_top1_std_pct": top1.std(ddof=1),
        "seconds_per_epoch": group["seconds_per_epoch"].astype(float).mean(),
        "lockstep": group["lockstep"].astype(float).fillna(1).max(),
        "budget": _budget(first["epochs"], first["batch_size"]),
        "device": ", ".join(sorted(set(group["device"] + " " + group["precision"]))),
        "setting": setting,
    }


def _budget(epochs: float | None, batch_size: float | None) -> str:
    """Whole numbers, which are floats in a frame where one is missing: of weights that were made elsewhere."""
    known = epochs is not None and not math.isnan(epochs)
    return f"{epochs:.0f} epochs, batch {batch_size:.0f}" if known else "made elsewhere"


def _gains(group, baseline) -> dict:
    if baseline is None:
        return {}
    top1, alone = group["test_top1_pct"].astype(float), baseline["test_top1_pct"].astype(float)
    gain, gap = top1.mean() - alone.mean(), group["teacher_top1_pct"].astype(float).mean() - alone.mean()
    paired = (top1 - alone).dropna()  # aligned on the seed
    return {
        "gain_points": gain,
        "paired_n": len(paired),
        "paired_gain_points": paired.mean(),
        "paired_gain_std_points": paired.std(ddof=1),
        "gap_closed_pct": 100 * gain / gap if gap > 0 else math.nan,
    }


def _distinct_labels(rows: list[dict]) -> list[str]:
    """The rows' labels; where two rows would read the same, each with its value of the settings that differ."""
    settings = [json.loads(row["setting"]) for row in rows]
    pairs = zip(rows, settings, strict=True)
    shown = [(row["label"], row["teacher"], *map(setting.get, SHOWN)) for row, setting in pairs]
    labels = []
    for row, setting, same in zip(rows, settings, shown, strict=True):
        alike = [other for other, text in zip(settings, shown, strict=True) if text == same]
        notes = distinctions(setting, alike)
        labels.append(f"{row['label']} [{', '.join(notes)}]" if notes else row["label"])
    return labels


def distinctions(setting: dict, alike: list[dict]) -> list[str]:
    """The `field value` of a setting, or of a budget, that some of those which read like it have otherwise."""
    differ = {field for field, value in setting.items() if any(other.get(field) != value for other in alike)}
    differ -= {f"{field}_options" for field in differ}  # those of different optimisers are no news
    if any(other.get("image_size") != setting.get("image_size") for other in alike):
        differ -= {"data_hash"}  # nor are other pixels at another size
    told = (
        (field, value, [other.get(field) for other in alike]) for field, value in setting.items() if field in differ
    )
    return [text for difference in told for text in _told(*difference)]


def _told(field: str, value, others: list) -> list[str]:
    """A setting that differs from those of others; of options the ones that do."""
    if isinstance(value, dict):
        own = {key: each for key, each in value.items() if any((other or {}).get(key) != each for other in others)}
        return [f"{key} {each}" for key, each in own.items()] or [f"{field} {_canonical(value)}"]
    text = str(value)
    return [f"{field} {text[:8] if len(text) == 64 else text}"]  # the beginning tells two hashes apart


def row_names(summary) -> list[str]:
    """A name for each row of a summary: its label, data set, model and budget where those vary, and how many runs;
    the teacher too, where two rows differ in it alone."""
    several = [field for field in ("dataset", "model", "budget") if summary[field].nunique() > 1]
    alike = summary.duplicated(["dataset", "role", "model", "label", "budget"], keep=False)

    def name(row: dict, same: bool) -> str:
        teacher = f" from {row['teacher']}" if same and row["teacher"] else ""
        parts = [row[field] for field in ("dataset", "model") if field in several] + [row["label"] + teacher]
        seeds = "single run" if row["n"] == 1 else f"n = {row['n']}"
        return f"{' · '.join(parts)} ({', '.join([row['budget']] * ('budget' in several) + [seeds])})"

    return [name(row, same) for row, same in zip(summary.to_dict("records"), alike, strict=True)]


def histories(dataset: str | None = None) -> dict[str, dict[str, list[dict]]]:
    """data set -> name of a setting -> its history, each number the mean over the setting's stored runs.

    A data set with more settings than one picture tells apart has a key per network instead: cifar100_resnet8. What was
    trained elsewhere has no history and is left out.
    """
    frame = results(dataset)
    stored = {record["name"]: record.get("history") or [] for record in artifacts.records()}
    found: dict[str, dict[str, list[dict]]] = {}
    trained = summarize(frame[frame["name"].map(lambda name: bool(stored[name])).astype(bool)])
    for name, together in trained.groupby("dataset", sort=False):
        split = together.groupby("model", sort=False) if len(together) > MAX_CURVES else [("", together)]
        for model, group in split:
            named = zip(row_names(group), group["setting"], strict=True)
            runs = {
                label: [stored[run] for run in frame.loc[frame["setting"] == setting, "name"]]
                for label, setting in named
            }
            key = f"{name}_{model}" if model else name
            found[key] = {label: [_mean_row(rows) for rows in zip(*each, strict=False)] for label, each in runs.items()}
    return found


def _mean_row(rows: tuple[dict, ...]) -> dict:
    common = [key for key in rows[0] if all(isinstance(row.get(key), (int, float)) for row in rows)]
    return {key: sum(row[key] for row in rows) / len(rows) for key in common}

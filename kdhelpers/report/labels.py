"""How tables name runs and settings: by method, hyperparameters, and the fields in which settings differ."""

import json

from kdhelpers.methods import METHODS
from kdhelpers.training.options import option_defaults

SYMBOLS = {"temperature": "T", "alpha": "α", "beta": "β", "lam": "λ", "smoothing": "ε"}
OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW", "lion": "Lion"}
SUMMARY_FIELDS = "dataset role model selection epochs batch_size".split()  # a summary has columns for them


def method_label(run: dict) -> str:
    """A run's method in a table: `teacher`, `KD (T=2.0), placebo mean`, `ConKD by Lion`; defaults are left out."""
    if run.get("role") == "teacher":
        return "teacher" if run.get("epochs") != 0 else "untrained teacher"
    name = run.get("method") or "?"
    defaults = default_hyperparameters(name)
    chosen = [
        f"{SYMBOLS.get(field, field)}={value}"
        for field, value in (run.get("hyperparameters") or {}).items()
        if field not in defaults or defaults[field] != value
    ]
    title = method_title(name)
    return (f"{title} ({', '.join(chosen)})" if chosen else title) + _by_optimizer(run) + _placebo(run)


def _by_optimizer(run: dict) -> str:
    return f" by {optimizer_title(run)}" if run.get("optimizer", "sgd") != "sgd" else ""


def optimizer_title(run: dict) -> str:
    """`AdamW`; an optimiser that has no title here has its registered name."""
    return OPTIMIZERS.get(run["optimizer"], run["optimizer"])


def _placebo(run: dict) -> str:
    return f", placebo {run['placebo']}" if run.get("placebo") else ""


def record_label(record: dict) -> str:
    """`method_label` of a record's run, and whether its teacher is untrained: `KD, untrained teacher`."""
    untrained = (record.get("teacher") or {}).get("untrained")
    return method_label(record.get("run") or {}) + ", untrained teacher" * bool(untrained)


def run_title(run: dict) -> str:
    """A run's method without hyperparameters: `DKD`, `DKD, placebo shuffled`, `DKD by Lion`."""
    return method_title(run.get("method") or "?") + _by_optimizer(run) + _placebo(run)


def method_title(name: str) -> str:
    """The method class's `title`, else its registered name in capitals."""
    return getattr(METHODS.get(name), "title", name.upper())


def default_hyperparameters(method: str) -> dict:
    """Name -> default; empty for a teacher, and for a method that is not registered any more."""
    return option_defaults(METHODS[method]) if method in METHODS else {}


def distinct_labels(rows: list[dict]) -> list[str]:
    """The labels of a summary's rows; rows that would read the same get the values of the fields that differ.

    A row has label, teacher and `run`, the column of `results`.
    """
    visible = [(row["label"], row["teacher"], *map(row["run"].get, SUMMARY_FIELDS)) for row in rows]
    labels = []
    for row, text in zip(rows, visible, strict=True):
        alike = [other["run"] for other, other_text in zip(rows, visible, strict=True) if other_text == text]
        notes = distinctions(row["run"], alike)
        labels.append(f"{row['label']} [{', '.join(notes)}]" if notes else row["label"])
    return labels


def distinctions(run: dict, alike: list[dict]) -> list[str]:
    """The `field value` of a run, or of a budget, that differ from at least one of the runs that read like it."""
    differ = {field for field, value in run.items() if any(other.get(field) != value for other in alike)}
    differ -= {f"{field}_options" for field in differ}  # the options of different optimizers differ by nature
    if any(other.get("image_size") != run.get("image_size") for other in alike):
        differ -= {"data_hash"}  # images of another size have other pixels
    fields = [field for field in run if field in differ]
    return [text for field in fields for text in _texts(field, run[field], [other.get(field) for other in alike])]


def _texts(field: str, value, others: list) -> list[str]:
    """`field value`; of options only those that differ from `others`."""
    if isinstance(value, dict):
        differ = [name for name, option in value.items() if any((other or {}).get(name) != option for other in others)]
        return [f"{name} {value[name]}" for name in differ] or [f"{field} {json.dumps(value, sort_keys=True)}"]
    text = str(value)
    return [f"{field} {text[:8] if len(text) == 64 else text}"]  # the first digits distinguish two hashes


def row_names(summary) -> list[str]:
    """A name for each row of a summary: its label, the data set, model and budget if they vary, and how many runs.

    The teacher is named if two rows differ only in it.
    """
    varied = [field for field in ("dataset", "model", "budget") if summary[field].nunique() > 1]
    alike = summary.duplicated(["dataset", "role", "model", "label", "budget"], keep=False)

    def name(row: dict, same: bool) -> str:
        teacher = f" from {row['teacher']}" if same and row["teacher"] else ""
        parts = [row[field] for field in ("dataset", "model") if field in varied] + [row["label"] + teacher]
        seeds = "single run" if row["n"] == 1 else f"n = {row['n']}"
        return f"{' · '.join(parts)} ({', '.join([row['budget']] * ('budget' in varied) + [seeds])})"

    return [name(row, same) for row, same in zip(summary.to_dict("records"), alike, strict=True)]

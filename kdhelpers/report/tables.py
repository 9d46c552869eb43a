"""The tables of the notebooks: pandas Stylers with escaped texts and a caption that a reader needs."""

import contextlib
import math
from functools import partial
from pathlib import Path

import pandas

from kdhelpers import artifacts
from kdhelpers.display.text import accuracy_text, caption, gain_text, magnitude_text, pace_text, paired_text, state_text
from kdhelpers.methods import METHODS
from kdhelpers.models import build_model, count_macs, count_parameters
from kdhelpers.nearest import known_names
from kdhelpers.report.results import results, summarize
from kdhelpers.report.styling import column_texts, plain, table_of
from kdhelpers.weights.load import find_teacher, load_model

SHADE = "background-color: rgba(0, 114, 178, 0.14)"  # readable on light and dark pages


def run_table(run):
    """The fields of a `Run`, or of anything with `model_dump()`, as a table: non-defaults first and in bold."""
    values = run.model_dump()
    chosen = _chosen(run, values)
    order = sorted(values, key=lambda name: name not in chosen)
    fields = getattr(type(run), "model_fields", {})
    meanings = [getattr(fields.get(name), "description", None) or "" for name in order]
    texts = {"setting": order, "value": [_value_text(values[name]) for name in order], "meaning": meanings}
    bold = ["font-weight: bold" if name in chosen else "" for name in order]
    styler = pandas.DataFrame(texts).style.apply(lambda _: bold, subset=["setting", "value"])
    return plain(styler, f"{getattr(run, 'artifact_name', type(run).__name__)} · bold: differs from the default")


def _chosen(run, values: dict) -> set[str]:
    """The fields that differ from their defaults; options differ if leaving them out would give others."""
    fields = getattr(type(run), "model_fields", {})
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    chosen = {name for name, value in values.items() if name not in defaults or value != defaults[name]}
    options = {name for name in chosen if isinstance(values[name], dict) and name in fields}
    for name in options:  # a Run completes them with the defaults of its method, optimiser and schedule
        with contextlib.suppress(ValueError):  # ImageNet weights need an option that differs from its default: chosen
            completed = type(run)(**{other: values[other] for other in chosen - {name}}).model_dump()
            chosen -= {name} if completed[name] == values[name] else set()
    return chosen


def _value_text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "–"
    return "–" if value is None else str(value)


def networks(run, data):
    """The run's network and its teacher, if any: parameters, multiply-accumulates per image, test accuracy.

    Raises FileNotFoundError that names the notebook to run for a teacher that was not trained yet.
    """
    rows, description = [], {}
    if run.teacher:
        weights = find_teacher(run.teacher, run.dataset)
        description = weights.description
        architecture, top1_pct = description.get("model", run.teacher), description.get("test_top1_pct")
        rows.append(_network_row("teacher", architecture, load_model(weights), data, top1_pct))
    network = build_model(run.model, data.num_classes, **run.model_options)
    rows.append(_network_row(run.role, run.model, network, data, None))
    card = (
        f"{data.name}: {len(data.train):,} train, {len(data.val):,} held out, {len(data.test):,} test images of "
        f"{data.num_classes} classes, {data.image_size} px"
    )
    if data.unlabelled is not None:
        used = METHODS[run.method](**run.hyperparameters).uses_unlabelled
        tested = data.test_images_unlabelled if used else 0
        card += f", {len(data.unlabelled):,} images without labels"
        card += f" (transductive: {tested:,} of them test images)" * bool(tested)
    return table_of(rows, " · ".join([card, *description.get("notes", [])]))


def _network_row(role: str, name: str, network, data, top1_pct: float | None) -> dict[str, str]:
    return {
        "network": role,
        "architecture": name,
        "parameters": magnitude_text(count_parameters(network)),
        "MACs per image": magnitude_text(count_macs(network, data.image_size)),
        "test top-1 (%)": "to be trained" if top1_pct is None else f"{top1_pct:.2f}",
    }


def metrics(**named: dict[str, float]):
    """The results of `evaluate` or `compare`, a column per keyword, or a row if there are more than three.

    Example: metrics(student=evaluate(predictions)).
    """
    keys = dict.fromkeys(key for values in named.values() for key in values)
    texts = {name: {key: _rounded(values.get(key)) for key in keys} for name, values in named.items()}
    rows = [{"network": name, **cells} for name, cells in texts.items()]
    if len(named) <= 3:
        rows = [{"metric": key} | {name: cells[key] for name, cells in texts.items()} for key in keys]
    return table_of(rows, "pct: percent, or points for a difference")


def _rounded(value: float | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.4g}"


def over_seeds(frame, by: list[str], note: str = ""):
    """The numbers of an analysis frame, a row per `by`: mean ± sample standard deviation over its `seed` column.

    `seeds` counts the seeds of a row; a row without a seed (NaN) counts none. If a row has several seeds, intervals
    within a seed (low, high) and ranks are left out. A mean over some of the seeds is followed by their number.
    """
    groups = list(frame.groupby(by, sort=False))
    several = max(len(group) for _, group in groups) > 1
    numbers = [column for column in frame.select_dtypes("number") if column not in (*by, "seed")]
    if several:
        numbers = [column for column in numbers if not set(column.split("_")) & {"low", "high", "rank"}]
    rows = [
        dict(zip(by, key, strict=True))
        | {column: _mean_text(group[column]) for column in numbers}
        | {"seeds": int(group["seed"].nunique()) or "–"}
        for key, group in groups
    ]
    spread = "mean ± sample standard deviation over seeds" if several else "a single run each"
    return table_of(rows, " · ".join(part for part in (note, spread) if part))


def _mean_text(values) -> str:
    """`0.512 ± 0.003`; no spread for one value; `0.512 ± 0.003 (2 of 3)` for a mean over fewer values than rows."""
    finite = values.dropna()
    if finite.empty:
        return "–"
    digits = 0 if values.dtype.kind == "i" else 2 if finite.abs().max() >= 10 else 3
    mean = f"{finite.mean():.{digits}f}"
    spread = f" ± {finite.std(ddof=1):.{digits}f}" if len(finite) > 1 and values.dtype.kind != "i" else ""
    return mean + spread + (f" ({len(finite)} of {len(values)})" if len(finite) < len(values) else "")


def results_table(dataset: str | None = None, highlight: str | None = None):
    """Every stored setting on `dataset` (None: on all): mean ± spread over seeds, gain, share of the teacher gap.

    The best student of each model and budget is in bold; the setting that the stored run `highlight` belongs to is
    shaded. The caption states n, the selection rule, budget and device; each of them that varies has a column. Raises
    ValueError if `highlight` is not a finished run here.
    """
    frame = results(dataset)
    summary = summarize(frame)
    shaded = frame.loc[frame["name"] == highlight, "setting"]
    if highlight is not None and shaded.empty:
        names = known_names(highlight, frame["name"])
        raise ValueError(f"highlight = {highlight}: not a finished run on {dataset or 'any data set'}; {names}")
    best = _best(summary)
    styler = _result_texts(summary).style.apply(_mark, axis=1, flags=summary["setting"].isin(shaded), css=SHADE)
    styler = styler.apply(_mark, axis=1, flags=best, css="font-weight: bold")
    return plain(styler, _results_caption(summary, dataset, bool(best.any()), highlight))


def _result_texts(summary):
    """The summary as texts; a column with one value in all rows is left to the caption."""
    texts = partial(column_texts, summary)
    columns = {
        "data": summary["dataset"],
        "method": summary["label"],
        "model": summary["model"],
        "teacher": summary["teacher"],
        "test top-1 (%)": [accuracy_text(row) for row in summary.to_dict("records")],
        "n": summary["n"],
        "gain (points)": texts(gain_text, "gain_points"),
        "paired gain (points)": texts(paired_text, "paired_gain_points", "paired_gain_std_points", "paired_n"),
        "gap closed (%)": texts(lambda share: "–" if math.isnan(share) else f"{share:.0f}", "gap_closed_pct"),
        "parameters": texts(magnitude_text, "parameters"),
        "MACs": texts(magnitude_text, "macs"),
        "s/epoch": texts(pace_text, "seconds_per_epoch", "lockstep"),
        **{field: summary[field] for field in ("selection", "budget", "device")},
    }
    constant = {"data": "dataset", "selection": "selection", "budget": "budget", "device": "device"}
    dropped = [column for column, field in constant.items() if summary[field].nunique() <= 1]
    return pandas.DataFrame(columns).drop(columns=dropped)


def _best(summary):
    """Flags the best student of a data set, model and budget, if there are at least two."""
    students = summary[summary["role"] == "student"]
    rivals = students.groupby(["dataset", "model", "budget"])["test_top1_pct"]
    winners = students.index[(rivals.transform("max") == students["test_top1_pct"]) & (rivals.transform("size") > 1)]
    return summary.index.isin(winners)


def _mark(row, flags, css: str) -> list[str]:
    return [css if flags[row.name] else ""] * len(row)


def _results_caption(summary, dataset: str | None, bold: bool, highlight: str | None) -> str:
    if summary.empty:
        return f"no finished run on {dataset or 'any data set'} yet: run notebooks 01_teacher, 02_independent_student"
    parts = [
        dataset,
        caption(summary),
        "bold: best student of its model and budget" if bold else "",
        f"shaded: {highlight}" if highlight else "",
    ]
    return " · ".join(part for part in parts if part)


def missing(dataset: str | None = None):
    """The methods without a finished run, per data set, and the runs that are not finished."""
    stored = [r for r in artifacts.records() if "run" in r and dataset in (None, r["run"]["dataset"])]
    finished = [r["run"] for r in stored if r.get("status") == "finished"]
    unfinished = [r for r in stored if r.get("status") != "finished"]
    rows = [(r["name"], state_text(r)) for r in unfinished]
    reason = "no finished run; `python -m kdhelpers list` names the notebooks"
    for name in [dataset] if dataset else sorted({r["run"]["dataset"] for r in stored}) or ["any data set"]:
        runs = [run for run in finished if name in (run["dataset"], "any data set")]
        rows += [(f"{name}: {role}", reason) for role in _without_run(runs)]
    return table_of(rows, f"{len(rows)} missing" if rows else "nothing is missing", ["missing", "why"])


def _without_run(runs: list[dict]) -> list[str]:
    """`teacher` and the methods of students that none of these runs has."""
    roles = {"teacher" if run["role"] == "teacher" else run["method"] for run in runs}
    return [role for role in ("teacher", *METHODS) if role not in roles]


def saved(trained):
    """The files that a training stored: each file, relative to the artifacts' root, and its size."""
    files = {
        "weights": trained.weights_path,
        "description of the weights": trained.weights_path.with_suffix(".json"),
        "result record": trained.record_path,
    }
    if trained.record.get("notebook"):
        files["executed notebook"] = artifacts.root() / trained.record["notebook"]
    rows = [(kind, _relative(path), _size_text(path.stat().st_size)) for kind, path in files.items() if path.is_file()]
    note = "loaded, it was trained before" if trained.cached else "trained now"
    name = trained.record.get("name")
    return table_of(rows, f"{name}: {note} · files in {artifacts.root()}", ["content", "file", "size"])


def _relative(path: Path) -> str:
    return path.relative_to(artifacts.root()).as_posix() if path.is_relative_to(artifacts.root()) else str(path)


def _size_text(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"

"""Texts of the command line: the listing, the comparison of two runs, predicted labels, a data card."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from textwrap import fill
from typing import Any

from kdhelpers.artifacts import load_record, original_name, record_path, records, weights_path
from kdhelpers.display.text import MARK

MAX_JOB_NAMES = 60  # of a profile; a longer one is listed by notebook


def columns(rows: Iterable[Iterable[Any]], indent: str = "  ") -> str:
    """Rows of cells as aligned text, without white space at the ends of the lines."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in texts)
    return "\n".join((indent + line).rstrip() for line in lines)


def listing() -> str:
    """All names that a `Run` or a command takes: notebooks, profiles, data sets, models, methods, optimisers, runs."""
    from kdhelpers.data import DATASETS
    from kdhelpers.methods import METHODS
    from kdhelpers.models import MODELS
    from kdhelpers.training.optim import LION_RULE, described

    sections = {
        "Notebooks (parameter = default)": _notebooks(),
        "Profiles (python -m kdhelpers suite --profile NAME)": _profiles(),
        "Data sets": f"  {', '.join(DATASETS)}, or a folder's name under the data root",
        "Models": _wrapped(", ".join(MODELS)),
        "Methods": columns((name, _first_line(method)) for name, method in METHODS.items()),
        f"Optimisers ({LION_RULE})": columns(described()),
        "Stored runs": _stored_runs(),
    }
    return "\n\n".join(f"{title}\n{text or '  none yet'}" for title, text in sections.items())


def _wrapped(text: str) -> str:
    return fill(text, 110, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]


def _notebooks() -> str:
    from kdhelpers.suite.profiles import cells_of, notebooks_folder, parameters_of, source_of

    lines = []
    for path in sorted(notebooks_folder().glob("*.ipynb")):
        prose = "\n".join(source_of(cell) for cell in cells_of(path) if cell["cell_type"] == "markdown")
        title = next((line.lstrip("# ") for line in prose.splitlines() if line.startswith("#")), "(no title)")
        lines.append(f"  {path.stem}: {title}")
        lines.append(_wrapped(", ".join(f"{name} = {default}" for name, default in parameters_of(path).items())))
    return "\n".join(lines)


def _profiles() -> str:
    from kdhelpers.suite.profiles import load_profile, profile_names

    lines = []
    for profile in profile_names():
        try:
            jobs = load_profile(profile)
            lines += [f"  {profile}: {len(jobs)} jobs", _wrapped(", ".join(_job_names(jobs)))]
        except ValueError as error:  # the other profiles follow
            lines.append(f"  {profile}: faulty: {error}")
    return "\n".join(lines)


def _job_names(jobs: list) -> list[str]:
    """The names of the jobs; for a long profile every notebook with its number of jobs."""
    if len(jobs) <= MAX_JOB_NAMES:
        return [job.name for job in jobs]
    return [f"{notebook} ({count})" for notebook, count in Counter(job.notebook.stem for job in jobs).items()]


def _stored_runs() -> str:
    rows = [(record["name"], record.get("status", "?"), _accuracy(record)) for record in records()]
    return columns(rows) if rows else ""


def _accuracy(record: dict) -> str:
    top1 = record.get("metrics", {}).get("test_top1_pct")
    return "-" if top1 is None else f"{top1:.2f} %" + MARK * bool(record.get("notes"))


def comparison(first: str, second: str) -> str:
    """Two stored runs: settings that differ, metrics side by side, the paired difference on their test split.

    Raises FileNotFoundError, with the closest names, for a run that is not stored.
    """
    a, b = _record(first), _record(second)
    names = ("", first, second)
    metrics = [(key, *map(_number, pair)) for key, *pair in _pairs(a.get("metrics", {}), b.get("metrics", {}))]
    settings = [(key, *pair) for key, *pair in _pairs(a["run"], b["run"]) if key != "name" and pair[0] != pair[1]]
    notes = [f"{record['name']}: {note}" for record in (a, b) for note in record.get("notes") or []]
    parts = [
        f"Settings that differ\n{columns([names, *settings])}" if settings else "Settings: the same",
        f"Metrics\n{columns([names, *metrics])}",
        f"Paired on the test split\n  {_paired(a, b)}",
        *notes,
    ]
    return "\n\n".join(parts)


def _record(name: str) -> dict:
    record = load_record(original_name(name))
    if record is None:
        names = [stored["name"] for stored in records()]
        hint = ", ".join(get_close_matches(name, names, 3) or names) or "none; `python -m kdhelpers suite` makes some"
        raise FileNotFoundError(f"no stored run {name!r} ({record_path(name)}); stored: {hint}")
    return record


def _pairs(a: dict, b: dict) -> list[tuple[str, Any, Any]]:
    return [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b])]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _paired(a: dict, b: dict) -> str:
    """The paired difference with its interval over test images, or the reason why it is missing."""
    if a.get("data", {}).get("hash") != b.get("data", {}).get("hash") or not a.get("data"):
        return "not possible: the two runs used different data (their data hashes differ)"
    for record in (a, b):
        if record.get("status") != "finished":
            return f"not possible: {record['name']} is {record.get('status')}, not finished"
        if not weights_path(record["name"]).is_file():
            return f"not possible: {weights_path(record['name'])} is missing; run its notebook again"
    from kdhelpers.data import load_data
    from kdhelpers.evaluation.metrics import compare
    from kdhelpers.evaluation.predictions import infer
    from kdhelpers.weights.load import load_model

    run = a["run"]
    data = load_data(run["dataset"], run["image_size"], run["val_fraction"], run["split_seed"])
    result = compare(*(infer(load_model(record["name"]), data) for record in (a, b)))
    return (
        f"{a['name']} - {b['name']}: {result['difference_pct']:+.2f} points top-1, "
        f"95 % interval {result['low_pct']:+.2f} to {result['high_pct']:+.2f} over {result['n']} test images; "
        f"same prediction on {result['agreement_pct']:.1f} %. In fp32; the interval does not cover other seeds."
    )


def predictions(labels: Any, path: Path, model: str) -> str:
    """The submission at `path` as text, a row per predicted class; saves its picture, and ends with both paths."""
    from kdhelpers.analysis import label_figure, label_frame
    from kdhelpers.display import plots

    frame = label_frame(labels)
    network = Path(model).name.removesuffix(".pth")  # since many submissions are called submission.csv
    name = re.sub(r"[^\w.=+-]", "_", f"{network}_{path.stem}_predictions")
    picture = plots.save(label_figure(labels), name, frame)
    rows = [frame.columns, *([_fact(value) for value in row] for row in frame.itertuples(index=False))]
    return f"{columns(rows)}\n\n{path}: {len(labels.ids):,} rows\n{picture}"


def data_card(data: Any) -> str:
    """The data card, a fact per line."""
    return columns((name, _fact(value)) for name, value in data.card().items() if value != [])


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_fact, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(item)}" for key, item in value.items())
    return str(value)

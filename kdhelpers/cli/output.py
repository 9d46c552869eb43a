"""Texts of the command line: the comparison of two runs, predicted labels, a data card."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kdhelpers.artifacts import data_root, load_record, original_name, record_path, records, state, weights_path
from kdhelpers.cli.listing import table, wrapped
from kdhelpers.display.text import state_text
from kdhelpers.nearest import guess


def columns(rows: Iterable[Iterable[Any]], indent: str = "  ") -> str:
    """Rows of cells as aligned text, without white space at the ends of the lines."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in texts)
    return "\n".join((indent + line).rstrip() for line in lines)


def comparison(first: str, second: str) -> str:
    """Two stored runs, A and B: settings that differ, metrics side by side, the paired difference on their test split.

    Raises FileNotFoundError, with the closest names, for a run that is not stored, and ValueError for runs of different
    data sets, before it loads anything.
    """
    a, b = _record(first), _record(second)
    datasets = [(record.get("run") or {}).get("dataset") for record in (a, b)]
    if datasets[0] != datasets[1]:
        raise ValueError(f"compare = {first}, {second}: {' and '.join(map(str, datasets))}; give runs of one data set")
    settings = [row for row in _pairs(_flat(a["run"]), _flat(b["run"])) if row[0] != "name" and row[1] != row[2]]
    metrics = [(key, *map(_number, pair)) for key, *pair in _pairs(a.get("metrics", {}), b.get("metrics", {}))]
    notes = [wrapped(f"{record['name']}: {note}") for record in (a, b) for note in record.get("notes") or []]
    head = ("", "A", "B")
    names = [(letter, record["name"], state_text(record)) for letter, record in zip("AB", (a, b), strict=True)]
    parts = [
        "\n".join(f"{letter}  {name}" + f" ({state})" * (state != "finished") for letter, name, state in names),
        f"Settings that differ\n{columns([head, *settings])}" if settings else "Settings: the same",
        f"Metrics\n{columns([head, *metrics])}",
        f"Paired on the test split\n{wrapped('  ' + _paired(a, b), 2)}",
        *notes,
    ]
    return "\n\n".join(parts)


def _record(name: str) -> dict:
    record = load_record(original_name(name))
    if record is None:
        names = [stored["name"] for stored in records()]
        remedy = guess(name, names, 3) + "`python -m kdhelpers list runs` lists all" if names else "none is stored yet"
        raise FileNotFoundError(f"run = {name}: not stored ({record_path(name)}); {remedy}")
    return record


def _flat(run: dict) -> dict[str, Any]:
    """The fields of a run, with the options of its method, network, optimiser and schedule as fields of their own."""
    flat: dict[str, Any] = {}
    for field, value in run.items():
        flat |= value if isinstance(value, dict) else {field: value}
    return flat


def _pairs(a: dict, b: dict) -> list[tuple[str, Any, Any]]:
    return [(key, a.get(key, "-"), b.get(key, "-")) for key in dict.fromkeys([*a, *b])]


def _number(value: float | str | None) -> str:
    return "-" if value in (None, "-") else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _paired(a: dict, b: dict) -> str:
    """The paired difference with its interval over test images, or the reason why it is missing."""
    if a.get("data", {}).get("hash") != b.get("data", {}).get("hash") or not a.get("data"):
        return "not possible: the two runs used different data (their data hashes differ)"
    for record in (a, b):
        if record.get("status") != "finished":
            return f"not possible: {record['name']} is {state(record)}, not finished"
        if not weights_path(record["name"]).is_file():
            again = f"`python -m kdhelpers train {record_path(record['name'])}` trains it again"
            return f"not possible: {weights_path(record['name'])} is missing; {again}"
    from kdhelpers.data import load_data
    from kdhelpers.evaluation.metrics import compare
    from kdhelpers.evaluation.predictions import infer
    from kdhelpers.weights.load import load_model

    run = a["run"]
    data = load_data(run["dataset"], run["image_size"], run["val_fraction"], run["split_seed"])
    result = compare(*(infer(load_model(record["name"]), data) for record in (a, b)))
    return (
        f"A - B: {result['difference_pct']:+.2f} points top-1, "
        f"95 % interval {result['low_pct']:+.2f} to {result['high_pct']:+.2f} over {result['n']} test images; "
        f"same prediction on {result['agreement_pct']:.1f} %. In fp32; the interval does not cover other seeds."
    )


def image_classes(labels: Any) -> str:
    """A line per image: its name, its class and the confidence."""
    head = ("image", "class", "confidence")
    confidences = [f"{100 * value:.1f} %" for value in labels.confidences]
    return columns([head, *zip(labels.ids, labels.predicted_names, confidences, strict=True)], indent="")


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
    card = data.card()
    notes = [("notes" * (place == 0), note) for place, note in enumerate(card.pop("notes"))]
    return columns([*((name, _fact(value)) for name, value in card.items() if value != []), *notes])


def findings(found: Any) -> str:
    """The findings on a data set, a row per kind with its number and first places; the serious ones first."""
    from kdhelpers.data.findings import grouped, line

    groups = grouped(found)
    if not groups:
        return f"{found.name}: nothing is odd about its files"
    root = f"{data_root()}/"
    rows = [(first.severity, str(len(wheres)), line(first, wheres).replace(root, "")) for first, wheres in groups]
    return f"{root}\n{table([('severity', 'count', 'where: what; remedy'), *rows])}"


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_fact, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(item)}" for key, item in value.items())
    return str(value)

"""The gallery: plots/index.html, one static page over every stored run; opens from the file system, needs no network.

`gallery.html.j2` is its template, which escapes every text from a record or a file name. Links are relative to plots/.
"""

import math
import re
import time
from html import unescape
from itertools import groupby
from numbers import Real
from pathlib import Path
from typing import Any

from kdhelpers.artifacts import folder, record_path, records, root, state, write_atomic
from kdhelpers.display.html import Markup, curve, render
from kdhelpers.display.progress import loss_terms
from kdhelpers.display.text import accuracy_text, caption, evidence_note, magnitude_text, pace_text
from kdhelpers.report.labels import record_label
from kdhelpers.report.results import results, summarize

EMBEDDED = "digits"  # toy data, the last section
PAGE_TITLE = re.compile("<title>kdhelpers: (.*?)</title>")  # marks a page of this package
ACCURACIES = {"validation": "val", "train": "train"}


def write_gallery() -> Path:
    """Write the page from json_results/ and plots/; returns its path. Without records it names the first command."""
    path = folder("plots") / "index.html"
    pictures, pages = (sorted(folder("plots").glob(f"*.{kind}")) for kind in ("png", "html"))
    return write_atomic(path, page(records(), pictures, [other for other in pages if other != path]).encode())


def page(stored: list[dict], pictures: list[Path], pages: list[Path]) -> str:
    """The page over result records, `pictures` and other `pages`; these files lie in plots/."""
    by_dataset = sorted(stored, key=lambda record: (_dataset(record) == EMBEDDED, _dataset(record)))
    return render(
        "report/gallery.html.j2",
        title="the runs",
        count=len(stored),
        time=time.strftime("%Y-%m-%d %H:%M"),
        results=folder("results").name,
        sections=[_section(dataset, list(runs)) for dataset, runs in groupby(by_dataset, _dataset)],
        pages=_titled(pages),
        pictures=[(path, table.name if (table := path.with_suffix(".csv")).is_file() else "") for path in pictures],
        number=number,
        magnitude=magnitude,
    )


def _dataset(record: dict) -> str:
    return str(record.get("run", {}).get("dataset", "unknown data"))


def _titled(pages: list[Path]) -> list[tuple[str, str]]:
    """(File name, title) of the pages that this package wrote; a user's own pages are not listed."""
    texts = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in pages if path.is_file()}
    return [(name, unescape(title[1])) for name, text in texts.items() if (title := PAGE_TITLE.search(text))]


def _section(dataset: str, runs: list[dict]) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "note": evidence_note([dataset]).partition(": ")[2],
        "summary": _summary(dataset) if any(run.get("status") == "finished" for run in runs) else None,
        "cards": [_card(run) for run in sorted(runs, key=_card_order)],
    }


def _summary(dataset: str) -> dict[str, Any]:
    """One row per setting, mean and standard deviation over its seeds; the best student of the data set is marked."""
    summary = summarize(results(dataset))
    best = summary.loc[summary["role"] == "student", "test_top1_pct"].max()
    rows = [
        row
        | {
            "best": row["role"] == "student" and row["test_top1_pct"] == best,
            "accuracy": accuracy_text(row),
            "pace": pace_text(row["seconds_per_epoch"], row["lockstep"]),
        }
        for row in summary.to_dict("records")
    ]
    varied = [field for field in ("selection", "budget", "device") if summary[field].nunique() > 1]  # else: caption
    return {"rows": rows, "caption": caption(summary), "varied": varied}


def number(value: Any, form: str) -> str:
    """The number in this format, with a true minus sign; a dash for a missing value or NaN."""
    missing = not isinstance(value, Real) or math.isnan(value)
    return "–" if missing else form.format(value).replace("-", "−")


def magnitude(value: Any) -> str:
    return magnitude_text(value) if isinstance(value, Real) else "–"


def _card_order(record: dict) -> tuple:
    run = record.get("run", {})
    texts = [str(run.get(field, "")) for field in ("model", "method", "seed")]
    return run.get("role") != "teacher", *texts, record["name"]


def _card(record: dict) -> dict[str, Any]:
    run, status = record.get("run", {}), state(record)
    source = "made elsewhere" if "origin" in record else f"seed {run.get('seed', 0)}"
    return {
        "record": record,
        "status": status,
        "title": f"{record_label(record)} · {run.get('model', '?')} · {source}",
        "curves": _curves(record) if status == "finished" and record.get("history") else "",
        "links": _links(record),
    }


def _curves(record: dict) -> Markup:
    """Accuracy and loss over the epochs, side by side."""
    history = record.get("history", [])
    accuracy = {name: [row.get(f"{key}_top1_pct") for row in history] for name, key in ACCURACIES.items()}
    terms = list(dict.fromkeys(term for row in history for term in loss_terms(row)))
    terms = ["loss", *terms] if len(terms) > 1 else terms  # one term is the loss
    teacher = ("teacher (test)", (record.get("teacher") or {}).get("test_top1_pct"))
    losses = {term: [row.get(term) for row in history] for term in terms}
    return curve("accuracy, %", accuracy, reference=teacher) + curve("loss", losses)


def _links(record: dict) -> list[tuple[str, str]]:
    """(Label, address) of the record and of the executed notebook, if the files exist below the root."""
    paths = {"record": record_path(record["name"])}
    if record.get("notebook"):
        paths["notebook"] = root() / record["notebook"]
    return [
        (label, f"../{path.relative_to(root()).as_posix()}")
        for label, path in paths.items()
        if path.is_file() and path.is_relative_to(root())
    ]

"""The gallery: plots/index.html, one static page over every stored run; opens from the file system, needs no network.

Every text from a record or a file name is escaped by `html.element`; links are relative to plots/.
"""

import math
import re
import time
from collections.abc import Iterable
from html import unescape
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kdhelpers.artifacts import folder, lock, record_path, records, root, run_lock_path, write_atomic
from kdhelpers.display.html import STYLE, Html, curve, element, join
from kdhelpers.display.progress import loss_terms

EMBEDDED = "digits"  # toy data, shown last
OUR_TITLE = re.compile("<title>kdhelpers: (.*?)</title>")  # how a page says that it is one of ours
FIRST_COMMAND = "python -m kdhelpers suite --profile smoke"


def write_gallery() -> Path:
    """Write the page from json_results/ and plots/; returns its path. Without records it says how to make the first."""
    path = folder("plots") / "index.html"
    pictures, pages = (sorted(folder("plots").glob(f"*.{kind}")) for kind in ("png", "html"))
    return write_atomic(path, page(records(), pictures, [other for other in pages if other != path]).encode())


def page(found: list[dict], pictures: list[Path], pages: list[Path]) -> str:
    """The whole page; `found` are result records, `pictures` and other `pages` lie in plots/."""
    by_dataset = sorted(found, key=lambda record: (_dataset(record) == EMBEDDED, _dataset(record)))
    sections = [_section(name, list(runs)) for name, runs in groupby(by_dataset, _dataset)]
    runs = f"{len(found)} stored run{'' if len(found) == 1 else 's'}"
    intro = f"{runs}, written {time.strftime('%Y-%m-%d %H:%M')} from {folder('results').name}/"
    body = join(
        [
            element("header", element("h1", "Knowledge distillation: the runs"), element("p", intro, class_="muted")),
            *(sections or [_nothing_yet()]),
            _pages(pages),
            _pictures(pictures),
        ]
    )
    head = join(
        [
            Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", "kdhelpers: the runs"),
            Html(f"<style>{STYLE}</style>"),
        ]
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{element("main", body)}</body></html>\n'


def _dataset(record: dict) -> str:
    return str(record.get("run", {}).get("dataset", "unknown data"))


def _nothing_yet() -> Html:
    return element(
        "section",
        element("h2", "No runs yet"),
        element("p", "This command makes the first ones, on embedded data, in a few minutes:"),
        element("pre", FIRST_COMMAND),
        class_="empty",
    )


def _section(dataset: str, runs: list[dict]) -> Html:
    from kdhelpers.display.text import evidence_note

    note = evidence_note([dataset]).partition(": ")[2]
    badge = element("span", note, class_="badge warn") if note else ""
    finished = any(run.get("status") == "finished" for run in runs)
    table = _summary_table(dataset) if finished else element("p", "No run on this data is finished.", class_="muted")
    cards = [_card(run, badge) for run in sorted(runs, key=_card_order)]
    return element("section", element("h2", dataset, " ", badge), table, element("div", *cards, class_="cards"))


def _summary_table(dataset: str) -> Html:
    """One line per setting, mean and standard deviation over its seeds; the best student of the data set in bold."""
    from kdhelpers.display.text import caption
    from kdhelpers.report.results import results, summarize

    summary = summarize(results(dataset))
    rows = summary.to_dict("records")
    best = max((row["test_top1_pct"] for row in rows if row["role"] == "student"), default=None)
    lines = [_summary_line(row, row["role"] == "student" and row["test_top1_pct"] == best) for row in rows]
    varied = [field for field in ("selection", "budget", "device") if summary[field].nunique() > 1]  # else: caption
    cells = [{**line, **{field: row[field] for field in varied}} for line, row in zip(lines, rows, strict=True)]
    body = (
        element("tr", *(element("td", cell) for cell in line.values()), class_=row["role"])
        for line, row in zip(cells, rows, strict=True)
    )
    head = element("tr", *(element("th", name) for name in cells[0]))
    table = element("table", element("thead", head), element("tbody", *body))
    return join(
        [
            element("div", table, class_="scroll"),
            element("p", f"{caption(summary)} · best student in bold", class_="muted"),
        ]
    )


def _summary_line(row: dict, best: bool) -> dict[str, object]:
    from kdhelpers.display.text import accuracy_text, pace_text

    accuracy = accuracy_text(row)
    return {
        "method": row["label"],
        "network": row["model"],
        "teacher": "–" if missing(row["teacher"]) else row["teacher"],
        "n": row["n"],
        "test top-1, %": element("b", accuracy) if best else accuracy,
        "gain, points": number(row["gain_points"], "{:+.2f}"),
        "gap closed": number(row["gap_closed_pct"], "{:.0f} %"),
        "parameters": magnitude(row["parameters"]),
        "MACs": magnitude(row["macs"]),
        "s / epoch": pace_text(row["seconds_per_epoch"], row["lockstep"]),
    }


def missing(value: Any) -> bool:
    return value in (None, "") or (isinstance(value, float) and math.isnan(value))


def number(value: Any, form: str) -> str:
    return "–" if missing(value) else form.format(value).replace("-", "−")


def magnitude(value: Any) -> str:
    from kdhelpers.display.text import magnitude_text

    return "–" if missing(value) else magnitude_text(value)


def _card_order(record: dict) -> tuple:
    run = record.get("run", {})
    texts = [str(run.get(field, "")) for field in ("model", "method", "seed")]
    return run.get("role") != "teacher", *texts, record["name"]


def _card(record: dict, badge: Html | str) -> Html:
    from kdhelpers.report.results import method_label

    run, status = record.get("run", {}), record.get("status", "unknown")
    made = "made elsewhere" if "origin" in record else f"seed {run.get('seed', 0)}"
    title = f"{method_label(run)} · {run.get('model', '?')} · {made}"
    parts: Iterable[Html] = _finished_parts(record) if status == "finished" else _unfinished_parts(record, status)
    return element(
        "article",
        element("h3", title, " ", badge),
        element("p", record["name"], class_="name"),
        *parts,
        element("p", *_links(record), class_="links"),
        class_=f"card {run.get('role', '')} {status}",
    )


def _finished_parts(record: dict) -> list[Html]:
    metrics, model, teacher = record.get("metrics", {}), record.get("model", {}), record.get("teacher") or {}
    environment = record.get("environment", {})
    facts = {
        **_training_facts(record),
        "device": f"{environment.get('device_name') or environment.get('device')}, {environment.get('precision')}",
        "network": f"{magnitude(model.get('parameters'))} parameters, {magnitude(model.get('macs'))} MACs",
    }
    if teacher:
        facts["teacher"] = f"{teacher.get('name')}, {number(teacher.get('test_top1_pct'), '{:.2f} %')}"
    others = " · ".join(
        [
            f"top-5 {number(metrics.get('test_top5_pct'), '{:.1f} %')}",
            f"NLL {number(metrics.get('test_nll'), '{:.3f}')}",
            f"ECE {number(metrics.get('test_ece_pct'), '{:.1f} %')}",
        ]
    )
    top1 = element("span", number(metrics.get("test_top1_pct"), "{:.2f}"), class_="big")
    figure = join([element("p", top1, " % test top-1"), element("p", others, class_="muted")])
    rows = (join([element("dt", name), element("dd", text)]) for name, text in facts.items())
    notes = [element("p", note, class_="error") for note in record.get("notes") or []]
    curves = [_curves(record.get("history", []), teacher.get("test_top1_pct"))] if "origin" not in record else []
    return [figure, *notes, *curves, element("dl", *rows)]


def _training_facts(record: dict) -> dict[str, str]:
    """How a network came about: our training, or where one that was made elsewhere is from."""
    if "origin" in record:
        return {name.replace("_", " "): str(value) for name, value in record["origin"].items()}
    run, selection, metrics = record["run"], record.get("selection", {}), record.get("metrics", {})
    return {
        "selection": f"{selection.get('rule', '?')}, epoch {selection.get('epoch', '?')}",
        "budget": f"{run.get('epochs', '?')} epochs, batch {run.get('batch_size', '?')}, "
        f"{run.get('optimizer', '?')}, lr {run.get('lr', '?')}",
        "speed": f"{number(metrics.get('seconds_per_epoch'), '{:.3g} s')} / epoch, "
        f"{number(metrics.get('images_per_second'), '{:,.0f}')} images/s",
    }


def _curves(history: list[dict], teacher_top1_pct: float | None) -> Html:
    """Accuracy and loss over the epochs, side by side."""
    accuracy = {
        name: [row.get(key) for row in history]
        for name, key in (("validation", "val_top1_pct"), ("train", "train_top1_pct"))
    }
    keys = list(dict.fromkeys(term for row in history for term in loss_terms(row)))
    keys = ["loss", *keys] if len(keys) > 1 else keys  # one term is the loss
    terms = {key: [row.get(key) for row in history] for key in keys}
    return element(
        "div",
        curve("accuracy, %", accuracy, reference=("teacher (test)", teacher_top1_pct)),
        curve("loss", terms),
        class_="curves",
    )


def _unfinished_parts(record: dict, status: str) -> list[Html]:
    if status == "running" and not _is_at_work(record):
        return [
            element("span", "interrupted", class_="badge warn"),
            element("p", "Its process ended early; the same run continues from its last epoch."),
        ]
    parts = [element("span", status, class_=f"badge {status}")]
    return parts + ([element("p", record["error"], class_="error")] if record.get("error") else [])


def _is_at_work(record: dict) -> bool:
    try:
        with lock(run_lock_path(record.get("identity", "")), wait=False):
            return False
    except BlockingIOError:
        return True


def _links(record: dict) -> list[Html]:
    links = [("record", record_path(record["name"]))]
    if record.get("notebook"):
        links.append(("notebook", root() / record["notebook"]))
    return [
        element("a", label, href=f"../{quote(path.relative_to(root()).as_posix())}")
        for label, path in links
        if path.is_file() and path.is_relative_to(root())
    ]


def _pages(pages: list[Path]) -> Html:
    """A card for each page of ours; what else a user keeps there is left alone."""
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in pages if path.is_file()}
    titles = {path: unescape(found[1]) for path, text in texts.items() if (found := OUR_TITLE.search(text))}
    if not titles:
        return Html("")
    cards = (_page_card(path, title) for path, title in titles.items())
    return element("section", element("h2", "Interactive pages"), element("div", *cards, class_="cards"))


def _page_card(path: Path, title: str) -> Html:
    link = element("h3", element("a", title, href=quote(path.name)))
    return element("article", link, element("p", path.name, class_="name"), class_="card")


def _pictures(pictures: list[Path]) -> Html:
    if not pictures:
        return Html("")
    figures = []
    for path in pictures:
        table = path.with_suffix(".csv")
        data = [" ", element("a", "data", href=quote(table.name))] if table.is_file() else []
        image = Html(f'<img loading="lazy" src="{quote(path.name)}" alt="{element("i", path.stem)[3:-4]}">')
        figures.append(
            element(
                "figure",
                element("a", image, href=quote(path.name)),
                element("figcaption", path.stem.replace("_", " "), *data),
            )
        )
    return element("section", element("h2", "Pictures"), element("div", *figures, class_="pictures"))

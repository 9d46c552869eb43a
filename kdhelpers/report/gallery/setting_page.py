"""What the page of a setting shows: its seeds, their curves, the commands that repeat it, links to its files."""

import math
import shlex
from collections.abc import Mapping, Sequence
from numbers import Real
from os.path import isfile  # False, not an error, for a name that is too long
from pathlib import Path
from typing import Any

from kdhelpers.artifacts import folder, record_path, root, weights_path
from kdhelpers.display.html import Markup, curve
from kdhelpers.display.progress import loss_terms
from kdhelpers.display.text import gain_text
from kdhelpers.report.gallery.settings import Setting

ACCURACIES = {"validation": "val_top1_pct", "training": "train_top1_pct"}
SEED_HEADS = "seed,test top-1,top-5,NLL,ECE,validation,gain,epoch kept,s / epoch,images / s,device".split(",")


def number(value: Any, form: str) -> str:
    """The number in this format; a dash for a missing value or NaN."""
    missing = not isinstance(value, Real) or math.isnan(value)
    return "–" if missing else form.format(value)


def seed_rows(setting: Setting) -> list[list[str]]:
    """The texts of SEED_HEADS for each run."""
    return [_seed_row(record, setting.gains.get(record["name"], math.nan)) for record in setting.records]


def _seed_row(record: dict, gain: float) -> list[str]:
    metrics, device = record.get("metrics") or {}, record.get("environment") or {}
    chip = device.get("device_name") or device.get("device") or "unknown device"
    return [
        "made elsewhere" if "origin" in record else str(record["run"].get("seed", 0)),
        *(number(metrics.get(f"test_{name}_pct"), "{:.2f} %") for name in ("top1", "top5")),
        number(metrics.get("test_nll"), "{:.3f}"),
        number(metrics.get("test_ece_pct"), "{:.1f} %"),
        number(metrics.get("val_top1_pct"), "{:.2f} %"),
        gain_text(gain),
        str((record.get("selection") or {}).get("epoch", "–")),
        number(metrics.get("seconds_per_epoch"), "{:.3g}"),
        number(metrics.get("images_per_second"), "{:,.0f}"),
        ", ".join(map(str, filter(None, [chip, device.get("precision")]))),
    ]


def curves(setting: Setting) -> Markup:
    """Accuracy, loss and each loss term over the epochs, a thin line per seed."""
    histories = [record["history"] for record in setting.records if record.get("history")]
    if not histories:
        return Markup("")
    columns = lambda key: [[row.get(key) for row in history] for history in histories]  # noqa: E731
    level = (setting.records[0].get("teacher") or {}).get("test_top1_pct")
    accuracies = {name: columns(key) for name, key in ACCURACIES.items()}
    found = dict.fromkeys(term for history in histories for row in history for term in loss_terms(row))
    terms = [term for term in found if term != "loss"]
    charts = [curve("accuracy, %", accuracies, ("teacher (test)", level)), curve("loss", {"loss": columns("loss")})]
    if len(terms) > 1:  # one term is the loss
        charts += [curve(f"loss term {term}", {term: columns(term)}) for term in terms]
    return Markup("\n").join(charts)


def facts(setting: Setting) -> list[tuple[str, str]]:
    """(Name, text) of what the runs have in common."""
    row, run, first = setting.row, setting.row["run"], setting.records[0]
    if "origin" in first:
        return [(name.replace("_", " "), str(text)) for name, text in (first.get("origin") or {}).items()]
    teacher = first.get("teacher") or {}
    learning = [f"{name.replace('_', ' ')} {run[name]}" for name in ("optimizer", "lr", "schedule") if name in run]
    options = ", ".join(f"{name} {value}" for name, value in (run.get("hyperparameters") or {}).items())
    accuracy = number(teacher.get("test_top1_pct"), "{:.2f} %")
    found = {
        "budget": ", ".join([setting.budget, *learning]),
        "augmentation": run.get("augmentation"),
        "selection": _selection(str(run.get("selection", ""))),
        "device": row["device"],
        "hyperparameters": options,
        "teacher": f"{teacher.get('name')}, {accuracy} test top-1" if teacher else "",
        "started from": (first.get("start") or {}).get("name"),
        "profile": ", ".join(setting.profiles),
    }
    return [(name, str(text)) for name, text in found.items() if text]


def _selection(rule: str) -> str:
    meaning = {"best_val": "the epoch that is best on held-out training images", "last": "the last epoch"}
    return f"{rule}: {meaning[rule]}" if rule in meaning else rule


def commands(setting: Setting) -> list[str]:
    """The command that trains the first seed again, and the one that its notebook was replayed with."""
    first = setting.records[0]
    if "origin" in first:
        return []
    record = shlex.quote(f"json_results/{first['name']}.json")
    return [f"python -m kdhelpers train {record}", *([str(first["command"])] if first.get("command") else [])]


def files(record: dict, notebooks: Mapping[str, Path], base: str = "../..") -> list[tuple[str, str]]:
    """(Label, address) of the record's files below the root that exist; `base` leads from the page to the root."""
    executed = root() / str(record.get("notebook") or "none")
    page = notebooks.get(executed.stem)
    paths = {"record": record_path(record["name"]), "weights": weights_path(record["name"])}
    paths["executed notebook"] = page or executed
    return [
        (label, f"{base}/{path.relative_to(root()).as_posix()}")
        for label, path in paths.items()
        if path.is_relative_to(root()) and ".." not in path.parts and isfile(path)
    ]


def executed_pages() -> dict[str, Path]:
    """Job -> its executed notebook as HTML; the suite writes these."""
    pages = sorted((folder("plots") / "notebooks").glob("*.html"))
    return {path.stem: path for path in pages if path.is_file()}


def notes(setting: Setting) -> Sequence[str]:
    return list(dict.fromkeys(note for record in setting.records for note in record.get("notes") or []))

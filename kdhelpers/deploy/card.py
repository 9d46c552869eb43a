"""The model card of an export: Markdown with the metadata that model hubs read, from record and description alone."""

import math
import re
from typing import Any

import yaml

from kdhelpers.deploy.network import Source
from kdhelpers.display.html import Markup, render
from kdhelpers.display.text import evidence_note, spread_text
from kdhelpers.models import count_parameters
from kdhelpers.report.gallery.readme import text as escaped
from kdhelpers.report.labels import method_label
from kdhelpers.report.results import results, summarize

LONGEST = 200  # class names in a card; the description has all
TRAINING = (  # fields of a run -> what the card calls them
    ("pretrained", "started from ImageNet weights"),
    ("start_from", "started from"),
    ("epochs", "epochs"),
    ("batch_size", "batch size"),
    ("optimizer", "optimiser"),
    ("lr", "learning rate"),
    ("weight_decay", "weight decay"),
    ("schedule", "schedule"),
    ("augmentation", "augmentation"),
    ("seed", "seed"),
)
ENVIRONMENT = (("device_name", "device"), ("precision", "precision"), ("torch", "torch"), ("finished", "finished"))


def text(source: Source, exported: dict[str, Any]) -> str:
    """The whole card. Facts that neither record nor description has are called unknown or left out."""
    record = source.record
    run = record.get("run") or source.facts["run"]
    page = render(
        "deploy/card.md.j2",
        text=escaped,
        front=Markup(front_matter(source, exported)),
        record=record,
        exported=exported,
        facts=source.facts,
        run=run,
        method=method_label(run),
        parameters=count_parameters(source.network),
        training=_training(run, record),
        seeds=_seeds(source.name),
        notes=_notes(source, exported),
        longest=LONGEST,
    )
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def front_matter(source: Source, exported: dict[str, Any]) -> str:
    """The YAML between the lines `---`. The license is left out: the record does not have one."""
    dataset, top1 = exported["dataset"], source.facts.get("test_top1_pct")
    tags = ["image-classification", "kdhelpers", exported["format"], *["int8"] * exported["int8"]]
    tags += ["knowledge-distillation"] * bool(source.facts.get("teacher"))
    head = {"library_name": "kdhelpers", "pipeline_tag": "image-classification", "tags": tags, "datasets": [dataset]}
    paired = exported.get("int8_cost")
    value, counted = (paired["top1_pct"], paired["images"]) if paired else (top1, None)
    if value is not None:
        name = "top-1 accuracy" + (f" of the int8 file on {counted} test images" if paired else "")
        metric = {"type": "accuracy", "name": name, "value": round(value / 100, 4)}
        task, data = {"type": "image-classification"}, {"type": dataset, "name": dataset, "split": "test"}
        results = [{"task": task, "dataset": data, "metrics": [metric]}]
        head |= {"metrics": ["accuracy"], "model-index": [{"name": source.name, "results": results}]}
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=math.inf)


def _training(run: dict, record: dict) -> dict[str, Any]:
    environment = record.get("environment") or {}
    fields = {label: run.get(field) for field, label in TRAINING}
    fields |= {label: environment.get(field) for field, label in ENVIRONMENT}
    seconds = (record.get("metrics") or {}).get("train_seconds")
    fields |= {"training time": f"{seconds:.0f} s" if seconds else None}
    fields |= {"settings of the method": ", ".join(f"{k}={v}" for k, v in (run.get("hyperparameters") or {}).items())}
    return {label: value for label, value in fields.items() if value not in (None, "") and value is not False}


def _seeds(name: str) -> str:
    """Mean and spread of the accuracy over the stored seeds of this setting; "" if there is one seed alone."""
    frame = results()
    own = frame.loc[frame["name"] == name, "setting"]
    if own.empty:
        return ""
    (row,) = summarize(frame[frame["setting"] == own.iloc[0]]).to_dict("records")
    spread = spread_text(row["test_top1_pct"], row["test_top1_std_pct"], row["n"])
    return f"{spread} % over {row['n']} seeds" if row["n"] > 1 else ""


def _notes(source: Source, exported: dict) -> list[str]:
    teacher = (source.facts.get("teacher") or {}).get("notes") or []
    notes = [*(source.record.get("notes") or source.facts.get("notes") or []), *exported.get("notes", [])]
    notes += [f"about the teacher: {note}" for note in teacher]
    notes += [evidence_note([exported["dataset"]])]
    return list(dict.fromkeys(filter(None, notes)))

"""Writes the gallery: plots/index.html, and a page per setting in plots/pages/. Links are relative."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdhelpers.artifacts import damaged, folder, records, root, state, write_atomic
from kdhelpers.display.html import render
from kdhelpers.display.text import accuracy_text, evidence_note
from kdhelpers.report.gallery import setting_page
from kdhelpers.report.gallery.comparison import FILTERS, table
from kdhelpers.report.gallery.overview import Comparison, comparisons
from kdhelpers.report.gallery.pictures import Page, Picture, by_record, dataset_of, saved_pages, saved_pictures
from kdhelpers.report.gallery.readme import write_readmes
from kdhelpers.report.gallery.settings import EMBEDDED, Setting, stored_settings
from kdhelpers.report.gallery.study_views import study_views
from kdhelpers.report.labels import record_label
from kdhelpers.report.studies import STUDIES, Study, study_of

MARKER = '<meta name="generator" content="kdhelpers gallery">'  # pages without it are a user's own


@dataclass(frozen=True)
class Stored:
    """All that the gallery shows. `owned`: name of a record -> its pictures; `other`: pictures without a place."""

    settings: list[Setting]
    comparisons: list[Comparison]
    unfinished: list[dict]
    pictures: list[Picture]
    owned: dict[str, list[Picture]]
    other: list[Picture]
    pages: list[Page]
    notebooks: dict[str, Path]
    damaged: list[str]
    count: int


def write_gallery(profiles: Mapping[str, Sequence[str]] | None = None) -> Path:
    """Write the gallery from json_results/ and plots/; returns the path of its start page.

    Without records the page names the first command. profiles: name of a job -> the suite's profiles that have it.
    Pages of settings that are not stored any more are removed.
    """
    stored = _read(profiles or {})
    plots = folder("plots")
    own = {f"{setting.slug}.html": setting for setting in stored.settings}
    for name, setting in own.items():
        _write_if_changed(plots / "pages" / name, _setting(setting, stored))
    for path in filter(Path.is_file, (plots / "pages").glob("*.html")):
        if path.name not in own and MARKER in path.read_text(encoding="utf-8", errors="replace")[:2000]:
            path.unlink()
    write_readmes(stored.settings, stored.comparisons, stored.pictures)
    return write_atomic(plots / "index.html", _index(stored).encode())


def _read(profiles: Mapping[str, Sequence[str]]) -> Stored:
    found = records()
    settings = stored_settings(found, profiles)
    shown = {record["name"] for setting in settings for record in setting.records}
    pictures = saved_pictures(folder("plots"))
    unclaimed = [picture for picture in pictures if not study_of(picture.path.stem)]
    owned, notebooks = by_record(unclaimed, shown), setting_page.executed_pages()
    placed = {picture for group in owned.values() for picture in group}
    return Stored(
        settings=settings,
        comparisons=comparisons(settings),
        unfinished=[_unfinished(record, notebooks) for record in found if record["name"] not in shown],
        pictures=pictures,
        owned=owned,
        other=[picture for picture in unclaimed if picture not in placed],
        pages=saved_pages(folder("plots")),
        notebooks=notebooks,
        damaged=[fault.removeprefix(f"{root()}{os.sep}") for fault in damaged()],
        count=len(found),
    )


def _unfinished(record: dict, notebooks: Mapping[str, Path]) -> dict[str, Any]:
    run, now = record.get("run") or {}, state(record)
    reasons = {
        "interrupted": "Its process ended early; the same run continues from its last checkpoint.",
        "finished": "No test accuracy is recorded.",
    }
    seed = f"seed {run.get('seed', 0)}"
    parts = [run.get("dataset", "unknown data"), record_label(record), run.get("model", "?"), seed]
    return {
        "name": record["name"],
        "status": now,
        "title": " · ".join(map(str, parts)),
        "reason": reasons.get(now) or record.get("error") or "",
        "resumed": ", ".join(map(str, record.get("resumed") or [])),
        "files": setting_page.files(record, notebooks, base=".."),
    }


def _index(stored: Stored) -> str:
    """The start page: real data first, the embedded digits apart."""
    return render(
        "report/gallery/index.html.j2",
        title="the runs",
        time=time.strftime("%Y-%m-%d %H:%M"),
        results=folder("results").name,
        count=stored.count,
        runs=_part(stored, embedded=False),
        digits=_part(stored, embedded=True),
        unfinished=stored.unfinished,
        damaged=stored.damaged,
        filters=FILTERS,
        note=evidence_note([EMBEDDED]).partition(": ")[2],
        plots=folder("plots"),
    )


def _part(stored: Stored, embedded: bool) -> dict[str, Any]:
    """The overview, studies, table and other pictures of the embedded data, or of all other data."""
    settings = [setting for setting in stored.settings if setting.is_embedded == embedded]
    compared = [one for one in stored.comparisons if one.best.is_embedded == embedded]
    pictures = [picture for picture in stored.pictures if picture.is_embedded == embedded]
    pages = [page for page in stored.pages if page.is_embedded == embedded]
    notebooks = [path for path in stored.notebooks.values() if (dataset_of(path) == EMBEDDED) == embedded]
    evidence = ([], []) if embedded else (settings, compared)
    return {
        "settings": settings,
        "comparisons": [(one, _where_it_looks(one, pictures)) for one in compared],
        "studies": study_views(pictures, pages, notebooks, *evidence),
        "rows": table(settings, compared),
        "pictures": [picture for picture in stored.other if picture.is_embedded == embedded],
        "pages": [page for page in pages if not study_of(page.path.stem)],
    }


def _where_it_looks(comparison: Comparison, pictures: Sequence[Picture]) -> str:
    """The name of the Grad-CAM picture of the comparison's students, or empty."""
    stems = [picture.path.stem for picture in _of_network(comparison.best, pictures, "grad-cam")]
    return next((stem for stem in stems if "grad_cam" in stem), "")


def _of_network(setting: Setting, pictures: Sequence[Picture], key: str = "") -> list[Picture]:
    """The pictures of studies (of the study `key`) that are called after the setting's network and data set."""
    name = f"_{setting.row['model']}_{setting.row['dataset']}_"
    return [
        picture
        for picture in pictures
        if name in f"_{picture.path.stem}_" and (study := study_of(picture.path.stem)) and key in ("", study.key)
    ]


def _by_study(pictures: Sequence[Picture]) -> list[tuple[Study, Picture]]:
    """In the order of STUDIES."""
    return [(study, picture) for study in STUDIES for picture in pictures if study_of(picture.path.stem) is study]


def _setting(setting: Setting, stored: Stored) -> str:
    shown = [picture for picture in stored.pictures if not setting.is_control] if setting.is_student else []
    row = setting.row
    return render(
        "report/gallery/setting.html.j2",
        title=f"{row['label']} · {setting.pair} · {row['dataset']}",
        marker=MARKER,
        setting=setting,
        row=row,
        note=evidence_note([row["dataset"]]).partition(": ")[2],
        comparisons=[one for one in stored.comparisons if any(setting is student for student in one.students)],
        accuracy=accuracy_text(row),
        heads=setting_page.SEED_HEADS,
        seeds=list(zip(setting.records, setting_page.seed_rows(setting), strict=True)),
        files={record["name"]: setting_page.files(record, stored.notebooks) for record in setting.records},
        curves=setting_page.curves(setting),
        facts=setting_page.facts(setting),
        commands=setting_page.commands(setting),
        notes=setting_page.notes(setting),
        own=[picture for record in setting.records for picture in stored.owned.get(record["name"], [])],
        related=_by_study(_of_network(setting, shown)),
    )


def _write_if_changed(path: Path, text: str) -> None:
    content = text.encode()
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)

"""The stored settings in one table."""

import math
from functools import partial

import pandas

from kdhelpers import artifacts
from kdhelpers.display.text import (
    accuracy_text,
    conditions,
    headline,
    magnitude_text,
    mark_meaning,
    pace_text,
    paired_text,
)
from kdhelpers.nearest import known_names
from kdhelpers.report.paired import GAIN, with_gains
from kdhelpers.report.results import results, summary_of
from kdhelpers.report.styling import column_texts, table_of

SHADE = "background-color: rgba(0, 114, 178, 0.14)"  # readable on light and dark pages
BOLD = "font-weight: bold"
ALWAYS_FOLDED = ["gap closed (%)", "parameters", "MACs", "s/epoch", "device"]


def results_table(dataset: str | None = None, highlight: str | None = None, only=None):
    """Stored settings on `dataset` (None: on all): mean ± spread over seeds, gain, share of the teacher gap.

    only: names of stored runs, or what `fit` returned; the table then has the settings of these runs alone, over all of
    their stored seeds. The best student of each model and budget is in bold; the setting of the stored run `highlight`
    is shaded. Selection rule, budget and device have a column if they vary. Raises ValueError if `highlight` or a run
    of `only` is not a finished run here.
    """
    frame = results(dataset)
    shaded = _settings_of(frame, "highlight", [highlight] if highlight else [], dataset)
    chosen = _settings_of(frame, "only", only, dataset) if only is not None else set(frame["setting"])
    summary = summary_of(with_gains(frame).query("setting in @chosen"))
    best, texts = _best(summary), _result_texts(summary)
    left_out = frame["setting"].nunique() - len(chosen)
    note = f"{len(chosen)} of {len(chosen) + left_out} stored settings" if left_out else ""
    return table_of(
        texts,
        _results_caption(summary, dataset, bool(best.any()), highlight, note),
        keys=list(texts).index("teacher"),
        more=[column for column in ALWAYS_FOLDED if column in texts],
        conditions=" · ".join(conditions(summary)),
        css=_css(texts, summary["setting"].isin(shaded), best),
    )


def _settings_of(frame, argument: str, runs, dataset: str | None) -> set[str]:
    """The settings of these stored runs; ValueError for a run that is not finished."""
    names = [artifacts.original_name(getattr(run, "name", run)) for run in runs]
    stored = dict(zip(frame["name"], frame["setting"], strict=True))
    if unknown := [name for name in names if name not in stored]:
        where = dataset or "any data set"
        raise ValueError(f"{argument} = {unknown[0]}: not a finished run on {where}; {known_names(unknown[0], stored)}")
    return {stored[name] for name in names}


def _css(texts, shaded, best):
    rows = [";".join([SHADE] * int(shade) + [BOLD] * int(bold)) for shade, bold in zip(shaded, best, strict=True)]
    return pandas.DataFrame({column: rows for column in texts}, index=texts.index)


def _result_texts(summary):
    """The summary as texts; a column with one value in all rows is left to the conditions."""
    texts = partial(column_texts, summary)
    columns = {
        "data": summary["dataset"],
        "method": summary["label"],
        "model": summary["model"],
        "teacher": summary["teacher"].replace("", "–"),
        "test top-1 (%)": [accuracy_text(row) for row in summary.to_dict("records")],
        "n": summary["n"],
        "paired gain (points)": texts(paired_text, *GAIN),
        "gain over": summary["baseline"],
        "budget": summary["budget"],
        "selection": summary["selection"],
        "gap closed (%)": texts(lambda share: "–" if math.isnan(share) else f"{share:.0f}", "gap_closed_pct"),
        "parameters": texts(magnitude_text, "parameters"),
        "MACs": texts(magnitude_text, "macs"),
        "s/epoch": texts(pace_text, "seconds_per_epoch", "lockstep"),
        "device": summary["device"],
    }
    constant = {"data": "dataset", "selection": "selection", "budget": "budget", "device": "device"}
    dropped = [column for column, field in constant.items() if summary[field].nunique() <= 1]
    dropped += ["gain over"] * (not summary["baseline"].any())
    return pandas.DataFrame(columns).drop(columns=dropped)


def _best(summary):
    """Flags the best student of a data set, model and budget, if there are at least two."""
    students = summary[summary["role"] == "student"]
    rivals = students.groupby(["dataset", "model", "budget"])["test_top1_pct"]
    winners = students.index[(rivals.transform("max") == students["test_top1_pct"]) & (rivals.transform("size") > 1)]
    return summary.index.isin(winners)


def _results_caption(summary, dataset: str | None, bold: bool, highlight: str | None, note: str) -> str:
    if summary.empty:
        return f"no finished run on {dataset or 'any data set'} yet: run notebooks 01_teacher, 02_independent_student"
    parts = [
        "" if dataset and headline(summary).startswith(dataset) else dataset,
        headline(summary),
        mark_meaning(summary["notes"]),
        "bold: best student of its model and budget" if bold else "",
        f"shaded: {highlight}" if highlight else "",
        note,
    ]
    return " · ".join(part for part in parts if part)

"""Published figures merged with our settings: one match, one merge, for the studies and for the benchmark's pairs."""

from collections.abc import Sequence

from kdhelpers.report.paired import GAIN
from kdhelpers.report.results import summary_of
from kdhelpers.zoo.benchmark import matches, nearness

OUR_FIELDS = ["test_top1_pct", "test_top1_std_pct", "n", "selection", "label", "notes", *GAIN, "baseline"]
FIGURE_FIELDS = {"printed": "printed", "published_pct": "test_top1_pct"}
FIGURE_FIELDS |= {f"published_{field}": field for field in ("selection", "note", "budget", "settings")}
COLUMNS = ["method", *OUR_FIELDS, *FIGURE_FIELDS]
RECORD_FIELDS = "label run budget_key finished teacher_sha256 teacher_model teacher_top1_pct teacher_notes".split()


def settings(runs):
    """`summary_of` the students of a `with_gains` frame, with RECORD_FIELDS of the newest record of a setting."""
    students = runs[runs["role"] == "student"]
    newest = students.drop_duplicates("setting", keep="last").set_index("setting")[RECORD_FIELDS]
    newest["finished"] = newest["finished"].fillna("")
    return summary_of(students).drop(columns="label").join(newest, on="setting")


def beside(summary, figures: Sequence[dict], more: Sequence[str] = ()) -> list[dict]:
    """COLUMNS and `more` columns for each figure, with the row of `settings` that it matches, then for each other row.

    If several rows match a figure, it gets the one that is nearest to its recipe, then of most seeds, then the newest.
    """
    rows, left = [], summary.to_dict("records")
    for figure in figures:
        fitting = [row for row in left if matches(row["run"], figure)]
        chosen = max(fitting, key=lambda row: (nearness(row["run"], figure), row["n"], row["finished"]), default=None)
        left = [row for row in left if row is not chosen]
        fields = _teacher_fields(summary, figure) if figure["role"] == "teacher" else _our_fields(chosen, more)
        printed = {column: figure[field] for column, field in FIGURE_FIELDS.items()}
        rows.append({"method": figure["label"]} | fields | printed)
    return rows + [{"method": _name(row["label"], figures)} | _our_fields(row, more) for row in left]


def _name(label: str, figures: Sequence[dict]) -> str:
    """A setting's label; a bare title that is also a figure's label gets an addition."""
    return f"{label} (default hyperparameters)" if label in {figure["label"] for figure in figures} else label


def _our_fields(row: dict | None, more: Sequence[str] = ()) -> dict:
    return {field: row[field] for field in (*OUR_FIELDS, *more)} if row else {"n": 0, "notes": "", "baseline": ""}


def _teacher_fields(summary, figure: dict) -> dict:
    """The teacher of these settings, if it was trained on the figure's data set."""
    rows = summary[summary["teacher_top1_pct"].notna()].to_dict("records")
    if not rows or figure["dataset"] not in ("", rows[0]["dataset"]):
        return _our_fields(None)
    return {"test_top1_pct": rows[0]["teacher_top1_pct"], "n": 1, "notes": rows[0]["teacher_notes"]} | {
        "selection": "",
        "baseline": "",
    }

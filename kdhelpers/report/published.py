"""A study's published figures next to the stored runs of one budget."""

import math

import pandas

from kdhelpers import artifacts
from kdhelpers.display.text import BUDGET, MARK, accuracy_text, budget_text, evidence_note, gain_text, paired_text
from kdhelpers.nearest import known_names
from kdhelpers.report.beside import COLUMNS, GAINS, beside, settings
from kdhelpers.report.labels import default_hyperparameters
from kdhelpers.report.results import results
from kdhelpers.report.styling import column_texts, table_of
from kdhelpers.zoo.benchmark import matches, published


def table(study: str, name: str):
    """`beside_ours` as a table; its conditions state both budgets."""
    frame = beside_ours(study, name)
    columns = {
        "setting": frame["method"],
        "published (%)": frame["printed"].fillna("").replace("", "–"),
        "published gain": column_texts(frame, gain_text, "published_gain_points"),
        "ours (%)": [accuracy_text(row) for row in frame.to_dict("records")],
        "our gain, paired": column_texts(frame, paired_text, *GAINS),
        "note": frame["published_note"].fillna(""),
    }
    if frame["published_budget"].notna().any():
        columns["published budget"] = column_texts(frame, budget_text, "published_budget")
    record = artifacts.load_record(name)
    gains = frame["published_gain_points"].notna().any()
    parts = [
        evidence_note([record["run"]["dataset"]]),
        "ours: mean ± sample standard deviation over n seeds",
        "gain in points over the baseline of either column" if gains else "",
        f"another budget than the published one compares {'order and gains' if gains else 'order'}, not percentages",
    ]
    return table_of(columns, " · ".join(filter(None, parts)), conditions=_conditions(study, frame, record))


def _conditions(study: str, frame, record: dict) -> str:
    """Both budgets, and the notes."""
    run, figure = record["run"], published(study)[0]
    published_data = f" on {figure['dataset']} at {figure['image_size']} px" if figure["dataset"] else ""
    teacher = f" distilled from {record['teacher']['name']}" if record["teacher"] else ""
    parts = [
        f"published: single runs{published_data}",
        f"published budget: {BUDGET}" if frame["published_budget"].notna().any() else "",
        f"ours: {run['model']}{teacher} on {run['dataset']} at {record['data']['image_size']} px, {run['epochs']} "
        f"epochs, batch {run['batch_size']}, {run['optimizer']}, selection {run['selection']}",
        *(f"{MARK.strip()} {note}" for note in frame["notes"].unique() if note),
    ]
    return " · ".join(filter(None, parts))


def beside_ours(study: str, name: str):
    """A DataFrame with a row per figure of the study, then one per other setting at the budget of the run `name`.

    All settings are of that run's data, and without a teacher or of its teacher. Columns: `beside.COLUMNS` and
    `published_gain_points`; gains are over the study's own baseline, NaN if it has none. A hyperparameter that a figure
    leaves open is that of the run, if it is of the same method, else the method's default. An optimizer or data set
    that it leaves open may be any. Raises ValueError for an unknown study or run.
    """
    figures, frame = published(study), results()
    if name not in set(frame["name"]):
        raise ValueError(f"name = {name}: not a finished run; {known_names(name, frame['name'])}")
    reference = frame[frame["name"] == name].iloc[0]
    figures = [_completed(figure, reference["run"]) for figure in figures]
    baseline = next((figure for figure in figures if figure["role"] == "baseline"), None)
    summary = settings(_comparable(frame, reference), lambda run: baseline is not None and matches(run, baseline))
    merged = pandas.DataFrame(beside(summary, figures), columns=COLUMNS)
    base_pct = baseline["test_top1_pct"] if baseline else math.nan
    students = merged["method"].isin([figure["label"] for figure in figures if figure["role"] == "student"])
    return merged.assign(published_gain_points=(merged["published_pct"] - base_pct).where(students))


def _comparable(frame, reference):
    teacher = frame["teacher_sha256"]
    comparable = teacher.isna() | (teacher == reference["teacher_sha256"])
    return frame[comparable & (frame["budget_key"] == reference["budget_key"])]


def _completed(figure: dict, run: dict) -> dict:
    """The figure with the hyperparameters that it leaves open."""
    same_method = run["method"] == figure["method"]
    options = run["hyperparameters"] if same_method else default_hyperparameters(figure["method"])
    return figure | {"hyperparameters": options | figure["hyperparameters"]}

"""A study's published figures next to the stored runs of one budget."""

import math

import pandas

from kdhelpers import artifacts
from kdhelpers.display.text import (
    BUDGET,
    MARK,
    accuracy_text,
    budget_text,
    evidence_note,
    gain_text,
    paired_text,
    seeds_text,
)
from kdhelpers.nearest import known_names
from kdhelpers.report.beside import COLUMNS, beside, settings
from kdhelpers.report.labels import default_hyperparameters
from kdhelpers.report.paired import GAIN, by_setting, mean_gain, with_gains
from kdhelpers.report.results import results
from kdhelpers.report.styling import column_texts, table_of
from kdhelpers.zoo.benchmark import matches, published

STUDIES = ("supcrd", "conkd_lion")
OVER = [f"over_baseline_{field}" for field in ("points", "std_points", "n")]  # the study's baseline, not GAIN's


def stored(dataset: str | None = None) -> list[tuple[str, str]]:
    """(study, name of a run) for `table`: each budget and teacher with a student that a study has a figure of.

    The studies are those that print no pairs: `pairs` has the CRD benchmark. Most figures come first.
    """
    frame = results(dataset)
    taught = frame[(frame["role"] == "student") & frame["teacher_sha256"].notna()]
    found = []
    for study in STUDIES:
        for _, group in taught.groupby(["teacher_sha256", "budget_key"], sort=False):
            counts = {
                row["name"]: _figures_with_runs(study, row["run"], group["run"]) for row in group.to_dict("records")
            }
            name = max(counts, key=counts.get)
            found += [(-counts[name], study, name)] if counts[name] else []
    return [(study, name) for _, study, name in sorted(found)]


def _figures_with_runs(study: str, reference: dict, runs) -> int:
    """How many figures of students have one of the runs next to them in the table of the run `reference`."""
    figures = [_completed(figure, reference) for figure in published(study) if figure["role"] == "student"]
    return sum(any(matches(run, figure) for run in runs) for figure in figures)


def table(study: str, name: str):
    """`beside_ours` as a table; its conditions state both budgets."""
    frame, record = beside_ours(study, name), artifacts.load_record(name)
    columns = {
        "setting": frame["method"],
        "published (%)": frame["printed"].fillna("").replace("", "–"),
        "ours (%)": [accuracy_text(row) for row in frame.to_dict("records")],
    }
    if baseline := _baseline(study):
        columns[f"published over {baseline['label']}"] = column_texts(frame, gain_text, "published_gain_points")
        columns[f"ours over {baseline['label']}"] = column_texts(frame, paired_text, *OVER)
    columns["our paired gain"] = column_texts(frame, paired_text, *GAIN)
    if frame["baseline"].any():
        columns["gain over"] = frame["baseline"]
    columns["note"] = frame["published_note"].fillna("")
    if frame["published_budget"].notna().any():
        columns["published budget"] = column_texts(frame, budget_text, "published_budget")
    return table_of(columns, _caption(study, frame, record), conditions=_conditions(study, frame, record))


def _baseline(study: str) -> dict | None:
    return next((figure for figure in published(study) if figure["role"] == "baseline"), None)


def _caption(study: str, frame, record: dict) -> str:
    run, figure, ours = record["run"], published(study)[0], frame[frame["gain_n"].notna() | frame["label"].notna()]
    taught = f"{record['teacher']['model']} teaches {run['model']}" if record["teacher"] else run["model"]
    compared = "order and differences" if _baseline(study) else "order"
    parts = [
        evidence_note([run["dataset"]]),
        f"{study}, published: {figure['teacher']} teaches {figure['student']}; ours: {taught} on {run['dataset']}",
        f"ours: mean ± sample standard deviation over {seeds_text(ours['n'])}" if len(ours) else "",
        "gain in points over CE (no teacher)",
        f"another budget than the published one compares {compared}, not percentages",
    ]
    return " · ".join(filter(None, parts))


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

    All settings are of that run's data, and without a teacher or of its teacher. Columns: `beside.COLUMNS`, then OVER
    and `published_gain_points`, in points over the study's own baseline, NaN if it has none. A hyperparameter that a
    figure leaves open is that of the run, if it is of the same method, else the method's default. An optimizer or data
    set that it leaves open may be any. Raises ValueError for an unknown study or run.
    """
    figures, runs = published(study), with_gains(results())
    if name not in set(runs["name"]):
        raise ValueError(f"name = {name}: not a finished run; {known_names(name, runs['name'])}")
    reference = runs[runs["name"] == name].iloc[0]
    figures = [_completed(figure, reference["run"]) for figure in figures]
    baseline = next((figure for figure in figures if figure["role"] == "baseline"), None)
    comparable = _comparable(runs, reference)
    over = with_gains(comparable, lambda run: baseline is not None and matches(run, baseline))
    summary = settings(comparable).join(_over_baseline(over), on="setting")
    merged = pandas.DataFrame(beside(summary, figures, OVER), columns=[*COLUMNS, *OVER])
    base_pct = baseline["test_top1_pct"] if baseline else math.nan
    students = merged["method"].isin([figure["label"] for figure in figures if figure["role"] == "student"])
    return merged.assign(published_gain_points=(merged["published_pct"] - base_pct).where(students))


def _over_baseline(runs):
    """OVER by setting, of a frame of `with_gains` over the study's baseline."""
    gains = {setting: [mean_gain(own)[field] for field in GAIN] for setting, own in by_setting(runs).items()}
    return pandas.DataFrame.from_dict(gains, orient="index", columns=OVER, dtype=float)


def _comparable(frame, reference):
    teacher = frame["teacher_sha256"]
    comparable = teacher.isna() | (teacher == reference["teacher_sha256"])
    return frame[comparable & (frame["budget_key"] == reference["budget_key"])]


def _completed(figure: dict, run: dict) -> dict:
    """The figure with the hyperparameters that it leaves open."""
    same_method = run["method"] == figure["method"]
    options = run["hyperparameters"] if same_method else default_hyperparameters(figure["method"])
    return figure | {"hyperparameters": options | figure["hyperparameters"]}

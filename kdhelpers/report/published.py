"""Published figures beside ours: what a study printed, and what the stored runs of one budget reached."""

import csv
import inspect
import json
import math
from pathlib import Path

from kdhelpers import artifacts
from kdhelpers.display.text import MARK, evidence_note, spread_text
from kdhelpers.report.results import budget_key, results
from kdhelpers.report.tables import gain_text, paired_text, plain

FIGURES = Path(__file__).with_name("published.csv")


def published(study: str) -> list[dict]:
    """The figures of a study in its order: label, role, method, hyperparameters, optimizer, dataset, image_size,
    test_top1_pct (NaN where it printed none), printed (its digits), note; what the study leaves open is empty.

    Raises ValueError that lists the studies for an unknown one.
    """
    with FIGURES.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if study not in (known := list(dict.fromkeys(row["study"] for row in rows))):
        raise ValueError(f"study = {study}: unknown; known: {', '.join(known)}")
    return [
        row
        | {
            "hyperparameters": json.loads(row["hyperparameters"] or "{}"),
            "test_top1_pct": float(row["test_top1_pct"] or "nan"),
            "printed": row["test_top1_pct"],
        }
        for row in rows
        if row["study"] == study
    ]


def table(study: str, name: str):
    """A study's printed figures beside our runs at the budget of the stored run `name`: see `beside_ours`."""
    import pandas

    frame = beside_ours(study, name)
    ours = frame[["ours_pct", "ours_std_pct", "n", "ours_notes"]].itertuples(index=False)
    gains = frame[["gain_points", "gain_std_points", "paired_n"]].itertuples(index=False)
    texts = {
        "setting": frame["setting"],
        "published (%)": frame["printed"].fillna("").replace("", "–"),
        "published gain": [gain_text(value) for value in frame["published_gain_points"]],
        "ours (%)": [spread_text(mean, std, n) + MARK * bool(notes) for mean, std, n, notes in ours],
        "our gain, paired": [paired_text(*row) for row in gains],
        "note": frame["note"].fillna(""),
    }
    return plain(pandas.DataFrame(texts).style, _caption(study, frame, artifacts.load_record(name)))


def _caption(study: str, frame, ours: dict) -> str:
    run, figure = ours["run"], published(study)[0]
    theirs = f" on {figure['dataset']} at {figure['image_size']} px" if figure["dataset"] else ""
    teacher = f" taught by {ours['teacher']['name']}" if ours["teacher"] else ""
    gains = frame["published_gain_points"].notna().any()
    parts = [
        evidence_note([run["dataset"]]),
        "gain in points over the baseline of either column" if gains else "",
        f"published: single runs{theirs}",
        f"ours: {run['model']}{teacher} on {run['dataset']} at {ours['data']['image_size']} px, {run['epochs']} "
        f"epochs, batch {run['batch_size']}, {run['optimizer']}, selection {run['selection']}, mean ± sample standard "
        "deviation over n seeds",
        f"another budget than the published one compares {'order and gains' if gains else 'order'}, not percentages",
        *(f"{MARK.strip()} {note}" for note in frame["ours_notes"].unique() if note),
    ]
    return " · ".join(filter(None, parts))


def beside_ours(study: str, name: str):
    """A DataFrame with a row per figure of the study, then one per other method that we ran at the budget of the
    stored run `name`, on its data and with its teacher.

    setting, note, printed; published_pct and published_gain_points, over the study's own baseline; ours_pct and
    ours_std_pct over n seeds, with ours_notes on them; gain_points and gain_std_points over our baseline, in pairs of
    equal seed (paired_n). NaN where there is none. Raises ValueError for an unknown study or run.
    """
    import pandas

    printed, frame = published(study), results()
    if name not in set(frame["name"]):
        raise ValueError(f"name = {name}: not a finished run; known: {', '.join(frame['name']) or 'none'}")
    reference = frame[frame["name"] == name].iloc[0]
    ours = _comparable(frame, reference).sort_values("finished", kind="stable", na_position="first")
    base = next((row for row in printed if row["role"] == "baseline"), None)  # not every study printed one
    baseline = _runs_of(base, ours, reference) if base else ours.iloc[:0]
    rows, shown = [], set()
    for figure in printed:
        runs = _runs_of(figure, ours, reference)
        shown |= set(runs["setting"])
        gain = figure["test_top1_pct"] - base["test_top1_pct"] if base and figure["role"] == "student" else math.nan
        facts = {
            "setting": figure["label"],
            "printed": figure["printed"],
            "published_pct": figure["test_top1_pct"],
            "published_gain_points": gain,
        }
        rows.append(facts | _ours(figure, runs, baseline, reference) | {"note": figure["note"]})
    for _, runs in ours[~ours["setting"].isin(shown)].groupby("setting", sort=False):
        rows.append({"setting": runs["label"].iloc[0]} | _ours({"role": "student"}, runs, baseline, reference))
    return pandas.DataFrame(rows)


def _comparable(frame, reference):
    """The students of the reference's budget and data that it may be set beside: without a teacher, or of its own."""
    teachers = frame["setting"].map(lambda setting: json.loads(setting)["teacher_sha256"])
    own = json.loads(reference["setting"])["teacher_sha256"]
    same = frame["setting"].map(budget_key) == budget_key(reference["setting"])
    return frame[same & (frame["role"] == "student") & (teachers.isna() | (teachers == own))]


def _runs_of(figure: dict, ours, reference):
    """Our runs of a published setting; hyperparameters that it leaves open are those of the reference, if that is of
    the same method, else the method's defaults; an optimiser or data set that it leaves open may be any."""
    if figure["role"] == "teacher":
        return ours.iloc[:0]
    of_reference = json.loads(reference["setting"])["hyperparameters"]
    open_ones = of_reference if reference["method"] == figure["method"] else _defaults(figure["method"])
    wanted = open_ones | figure["hyperparameters"]
    settings = ours["setting"].map(json.loads)
    fits = settings.map(lambda known: all(known["hyperparameters"].get(key) == value for key, value in wanted.items()))
    stated = settings.map(lambda known: _agrees(figure, known))
    return ours[fits & stated & (ours["method"] == figure["method"])]


def _agrees(figure: dict, run: dict) -> bool:
    stated = [field for field in ("optimizer", "dataset") if figure.get(field)]
    return all(run[field] == figure[field] for field in stated)


def _defaults(method: str) -> dict:
    from kdhelpers.methods import METHODS

    return {name: known.default for name, known in inspect.signature(METHODS[method]).parameters.items()}


def _ours(figure: dict, runs, baseline, reference) -> dict:
    if figure["role"] == "teacher" and _agrees(figure, json.loads(reference["setting"])):
        return {"ours_pct": reference["teacher_top1_pct"], "n": 1, "ours_notes": reference["teacher_notes"]}
    if runs.empty:
        return {"n": 0, "ours_notes": ""}
    top1, base = (group.groupby("seed")["test_top1_pct"].last().astype(float) for group in (runs, baseline))
    paired = (top1 - base).dropna() if figure["role"] == "student" else top1.iloc[:0]
    return {
        "ours_pct": top1.mean(),
        "ours_std_pct": top1.std(ddof=1),
        "n": len(top1),
        "ours_notes": "; ".join(filter(None, runs["notes"].unique())),
        "gain_points": paired.mean(),
        "gain_std_points": paired.std(ddof=1),
        "paired_n": len(paired),
    }

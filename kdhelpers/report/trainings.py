"""The trainings in pictures: validation accuracy by epoch, a panel per network and budget."""

import math

import pandas

from kdhelpers import artifacts
from kdhelpers.display.plots import accuracies, history_frame
from kdhelpers.report.results import MAX_CURVES, results, row_names, summarize


def pictures(dataset: str | None = None) -> dict:
    """Name -> (figure, its data) for each data set: a line per setting, the mean over its seeds.

    A data set of more than MAX_CURVES settings has a picture per network. Weights trained elsewhere have no history and
    are left out. The data have the loss terms, too.
    """
    stored = {record["name"]: record.get("history") or [] for record in artifacts.records()}
    frame = results(dataset)
    frame = frame[frame["name"].map(lambda name: bool(stored[name])).astype(bool)]
    runs = frame.groupby("setting")["name"].agg(list)
    found = {}
    for name, settings in summarize(frame).groupby("dataset", sort=False):
        split = settings.groupby("model", sort=False) if len(settings) > MAX_CURVES else [("", settings)]
        for model, group in split:
            key = f"results_curves_{name}_{model}" if model else f"results_curves_{name}"
            means = [_mean([stored[run] for run in runs[setting]]) for setting in group["setting"]]
            figure = accuracies(_panels(group, means))
            found[key] = figure, history_frame(dict(zip(row_names(group), means, strict=True)))
    return found


def _mean(histories: list[list[dict]]) -> list[dict]:
    """Each number's mean over the runs; of epochs and numbers that all of them have."""
    rows = pandas.concat([pandas.DataFrame(history) for history in histories]).groupby("epoch")
    numbers = rows.mean(numeric_only=True).where(rows.count() == len(histories))
    means = numbers[rows.size() == len(histories)].reset_index().to_dict("records")
    return [{name: value for name, value in row.items() if not math.isnan(value)} for row in means]


def _panels(group, histories: list[list[dict]]) -> dict:
    """Title -> the label of a setting, which the title leaves open -> its history."""
    found: dict[str, dict] = {}
    alike = group.duplicated(["model", "label", "budget"], keep=False)
    for row, history, same in zip(group.to_dict("records"), histories, alike, strict=True):
        panel = found.setdefault(f"{row['model']}, {row['budget']}", {})
        teacher = f" from {row['teacher'].removeprefix('teacher_')}" if same and row["teacher"] else ""
        panel[row["label"] + teacher] = history
    return found

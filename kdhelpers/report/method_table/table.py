"""The tables: what each method gains and costs, and its published figure with the budget of that."""

import math
from functools import partial

from kdhelpers import artifacts
from kdhelpers.display.text import (
    MARK,
    accuracy_text,
    evidence_note,
    gain_text,
    magnitude_text,
    mark_meaning,
    pace_text,
    paired_text,
    seeds_text,
)
from kdhelpers.report.paired import GAIN
from kdhelpers.report.styling import column_texts, table_of

PUBLISHED_EPOCHS = 240  # of one view: the unit of published budgets
FOLDED = ["step (ms)", "student images", "memory of a step (MiB)", "s/epoch", "peak memory (MiB)"]
EXPLAINED = (
    "step: its time relative to KD with a live teacher, timed in turns in one run",
    "views: augmented images that a step makes of one; student and teacher images: those that each network computes",
    "trained +: parameters that are trained with the student; kept +: those that a user of the student needs, too",
    "other augmentation: stored with that one alone; the gain is over the student alone of the same augmentation",
    "memory of a step: tensors that wait for the backward pass; peak memory: of the whole process, from the record",
)


def table(frame):
    """The frame of `with_costs`, best method first: gains over no teacher and over the placebo, then costs."""
    texts = partial(column_texts, frame)
    columns = {
        "method": frame["method"],
        "reads": frame["family"],
        "test top-1 (%)": [accuracy_text(row) for row in frame.to_dict("records")],
        "gain, paired (points)": texts(paired_text, *GAIN),
        "over its placebo": texts(paired_text, "placebo_gain_points", "placebo_gain_std", "placebo_n"),
        "step (× KD)": texts(_number, "step_ratio"),
        "views": texts(_count, "views"),
        "teacher images": texts(_count, "teacher_images"),
        "trained +": texts(magnitude_text, "trained_parameters"),
        "kept +": texts(magnitude_text, "extra_parameters"),
        "step (ms)": texts(_number, "step_ms"),
        "student images": texts(_count, "student_images"),
        "memory of a step (MiB)": texts(_number, "kept_mib"),
        "s/epoch": texts(pace_text, "seconds_per_epoch", "lockstep"),
        "peak memory (MiB)": texts(_number, "peak_memory_mib"),
    }
    caption = _caption(frame, "mean ± sample standard deviation over seeds; gains over the student alone")
    return table_of(columns, caption, more=FOLDED, conditions=" · ".join([*EXPLAINED, *_notes(frame)]))


def published(frame):
    """Each method's figure of ours next to the published one, both with their budgets; methods with a figure only."""
    frame = frame[frame["published_pct"].notna()]
    columns = {
        "method": frame["method"],
        "ours (%)": [accuracy_text(row) for row in frame.to_dict("records")],
        "our gain": column_texts(frame, gain_text, "gain_points"),
        "our budget": list(map(_budget, frame["epochs"] * frame["views"] / PUBLISHED_EPOCHS)),
        "published (%)": column_texts(frame, _number, "published_pct"),
        "published gain": column_texts(frame, gain_text, "published_gain_points"),
        "published budget": column_texts(frame, _budget, "published_budget"),
        "epoch kept": frame["published_selection"].replace("", "not said"),
        "note": frame["published_note"],
    }
    caption = _caption(frame, "another pair and budget compares the order of gains, not percentages")
    return table_of(columns, caption, conditions=" · ".join(_conditions(frame)))


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"


def _budget(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}"


def _caption(frame, text: str) -> str:
    if frame.empty:
        return "no stored student has a student without a teacher of its own budget"
    first = frame.iloc[0]
    pair = f"{first['dataset']}: {first['teacher']} ({first['teacher_top1_pct']:.2f} %) teaches {first['student']}"
    counted = f"{len(frame)} settings, {seeds_text(frame['n'])}"
    parts = [evidence_note(frame["dataset"]), f"{pair}, {first['budget']}", counted, text, mark_meaning(frame["notes"])]
    return " · ".join(filter(None, parts))


def _notes(frame) -> list[str]:
    return [f"{MARK.strip()} {note}" for note in frame["notes"].unique() if note]


def _conditions(frame) -> list[str]:
    """Both budgets in words."""
    if frame.empty:
        return []
    run = (artifacts.load_record(frame["name"].iloc[0]) or {})["run"]
    return [
        f"a budget of 1: {PUBLISHED_EPOCHS} epochs of one view an image",
        f"ours: {run['epochs']} epochs, batch {run['batch_size']}, {run['optimizer']} at {run['lr']:g}, schedule "
        f"{run['schedule']}, selection {run['selection']}, one teacher",
        f"published: {frame['published_pair'].iloc[0]}, another teacher; batch 64, SGD at 0.05 (0.01 for MobileNetV2 "
        "and ShuffleNets), divided by 10 at 150, 180 and 210 of 240 epochs, unless a note says otherwise",
        "epoch kept, test: the best on the test images, worth about +0.3 points",
        *_notes(frame),
    ]

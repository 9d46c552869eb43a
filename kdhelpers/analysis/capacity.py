"""Teacher capacity: does a larger teacher, or a more accurate one, make a better student?"""

import pandas

from kdhelpers.analysis.agreement import divergence
from kdhelpers.display.style import PALETTE, new_figure, styled
from kdhelpers.evaluation.metrics import compare, top_k_pct
from kdhelpers.evaluation.predictions import Predictions

NO_TEACHER = "no teacher"


def capacity(teachers: dict[str, Predictions], students: dict[str, Predictions], alone: Predictions | None = None):
    """A DataFrame with a row per teacher, in the order given, after a row for `alone`, a student without a teacher.

    teachers and students share their keys: a student has its teacher's key. Columns: teacher; teacher_top1_pct,
    student_top1_pct; kl_nats (teacher || student at T = 1); agreement_pct (same predicted class); with `alone` also
    gain_points over it with its 95 % paired bootstrap interval over images, gain_low_points, gain_high_points. Raises
    ValueError for keys that differ.
    """
    if list(teachers) != list(students):
        raise ValueError(f"students: {', '.join(students)} for teachers {', '.join(teachers)}; give one for each")
    rows = [{"teacher": NO_TEACHER, "student_top1_pct": top_k_pct(alone)}] if alone else []
    rows += [{"teacher": name, **_measures(teachers[name], students[name], alone)} for name in teachers]
    return pandas.DataFrame(rows)


def _measures(teacher: Predictions, student: Predictions, alone: Predictions | None) -> dict[str, float]:
    paired = compare(student, teacher)
    measures = {
        "teacher_top1_pct": paired["second_pct"],
        "student_top1_pct": paired["first_pct"],
        "kl_nats": divergence(teacher, student).mean().item(),
        "agreement_pct": paired["agreement_pct"],
    }
    if alone:
        gain = compare(student, alone)
        columns = {"gain_points": "difference_pct", "gain_low_points": "low_pct", "gain_high_points": "high_pct"}
        measures |= {column: gain[key] for column, key in columns.items()}
    return measures


def capacity_bars(frame):
    """Accuracy of each teacher (grey) and its student: mean over the frame's seeds, with a dot per seed."""
    names = list(dict.fromkeys(frame["teacher"]))
    with styled():
        figure = new_figure(1.8 + 1.3 * len(names), 3.0)
        axes = figure.subplots()
        for position, name in enumerate(names):
            rows = frame[frame["teacher"] == name]
            _pair(axes, position, rows["teacher_top1_pct"].dropna(), rows["student_top1_pct"])
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("test top-1 accuracy (%)")
        axes.grid(False, axis="x")
        axes.margins(y=0.12)
        handle_of = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # one entry per label
        figure.legend(handle_of.values(), handle_of.keys(), loc="outside lower center", ncols=3)
    return figure


def _pair(axes, position: int, teacher, student) -> None:
    centre = position + (0.2 if len(teacher) else 0.0)
    bars = [(position - 0.2, teacher, "0.6", "teacher"), (centre, student, PALETTE[0], "student")]
    for x, values, colour, label in bars:
        if len(values):
            axes.bar(x, values.mean(), width=0.38, color=colour, label=label)
            above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"{values.mean():.1f}", (x, values.max()), **above)
    if len(student) > 1:
        axes.plot([centre] * len(student), student, "o", markersize=3, color="0.1", label="student, each seed")

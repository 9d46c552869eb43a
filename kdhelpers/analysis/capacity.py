"""Teacher capacity: does a larger teacher, or a more accurate one, make a better student?"""

from kdhelpers.analysis.agreement import divergence
from kdhelpers.display.plots import PALETTE, new_figure, styled
from kdhelpers.evaluation.metrics import compare, top_k_pct
from kdhelpers.evaluation.predictions import Predictions

ALONE = "no teacher"


def capacity(teachers: dict[str, Predictions], students: dict[str, Predictions], alone: Predictions | None = None):
    """A DataFrame with a row per teacher, in the order given, and one without a teacher first where `alone` is given.

    teachers and students share their keys: the student that each taught. Columns: teacher; teacher_top1_pct,
    student_top1_pct; kl_nats (teacher || student at T = 1); agreement_pct (same predicted class); and where `alone` is
    given gain_points over it with its 95 % paired bootstrap interval over images, gain_low_points, gain_high_points.
    Raises ValueError for keys that differ.
    """
    import pandas

    if list(teachers) != list(students):
        raise ValueError(f"students: {', '.join(students)} for teachers {', '.join(teachers)}; give one for each")
    rows = [{"teacher": ALONE, "student_top1_pct": top_k_pct(alone)}] if alone else []
    rows += [{"teacher": name, **_row(teachers[name], students[name], alone)} for name in teachers]
    return pandas.DataFrame(rows)


def _row(teacher: Predictions, student: Predictions, alone: Predictions | None) -> dict[str, float]:
    paired = compare(student, teacher)
    row = {
        "teacher_top1_pct": paired["second_pct"],
        "student_top1_pct": paired["first_pct"],
        "kl_nats": divergence(teacher, student).mean().item(),
        "agreement_pct": paired["agreement_pct"],
    }
    if alone:
        gain = compare(student, alone)
        row |= {f"gain{part}_points": gain[f"{key}_pct"] for part, key in _GAIN.items()}
    return row


_GAIN = {"": "difference", "_low": "low", "_high": "high"}


def capacity_bars(frame):
    """Each teacher's accuracy (grey) beside its student's, mean over the frame's seeds, a dot per seed."""
    names = list(dict.fromkeys(frame["teacher"]))
    with styled():
        figure = new_figure(1.8 + 1.3 * len(names), 3.0)
        axes = figure.subplots()
        for place, name in enumerate(names):
            rows = frame[frame["teacher"] == name]
            _pair(axes, place, rows["teacher_top1_pct"].dropna(), rows["student_top1_pct"])
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("test top-1 accuracy (%)")
        axes.grid(False, axis="x")
        axes.margins(y=0.12)
        named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # each label once
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=3)
    return figure


def _pair(axes, place: int, teacher, student) -> None:
    bars = [(-0.2, teacher, "0.6", "teacher"), (0.2 if len(teacher) else 0.0, student, PALETTE[0], "student")]
    for shift, values, colour, label in bars:
        if len(values):
            axes.bar(place + shift, values.mean(), width=0.38, color=colour, label=label)
            axes.annotate(
                f"{values.mean():.1f}", (place + shift, values.max()), (0, 4), textcoords="offset points", ha="center"
            )
    if len(student) > 1:
        places = [place + bars[1][0]] * len(student)
        axes.plot(places, student, "o", markersize=3, color="0.1", label="student, each seed")

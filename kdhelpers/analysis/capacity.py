"""Teacher capacity: does a larger teacher, or a more accurate one, make a better student?"""

from textwrap import fill

import pandas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kdhelpers.analysis.agreement import divergence
from kdhelpers.display.colours import TEACHER, look_of
from kdhelpers.display.style import new_figure, styled
from kdhelpers.evaluation.metrics import compare, top_k_pct
from kdhelpers.evaluation.predictions import Predictions

NO_TEACHER = "no teacher"
DOT = {"color": "0.75", "marker": "o", "markersize": 4, "markeredgecolor": "0.1", "linestyle": "none"}


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
    """Left the accuracy of each teacher (black) and its student, right the student's gain over the one without teacher.

    Bars are means over the frame's seeds, a dot is a seed. A frame without `alone` has no gains.
    """
    of = {name: frame[frame["teacher"] == name] for name in dict.fromkeys(frame["teacher"])}
    taught = [name for name in of if name != NO_TEACHER]
    widths = [len(of), len(taught)] if "gain_points" in frame else [len(of)]
    with styled():
        figure = new_figure(1.0 * len(widths) + 1.05 * sum(widths), 3.2)
        accuracy, *gain = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
        for place, (name, rows) in enumerate(of.items()):
            side = 0.2 * (name in taught)
            _bar(accuracy, place - side, rows["teacher_top1_pct"].dropna(), TEACHER, "{:.1f}")
            _bar(accuracy, place + side, rows["student_top1_pct"], _colour(name), "{:.1f}")
        _name(accuracy, list(of), "test top-1 accuracy (%)")
        for axes in gain:
            for place, name in enumerate(taught):
                _bar(axes, place, of[name]["gain_points"], _colour(name), "{:+.2f}")
            _name(axes, taught, "gain of the student over the\none without a teacher (points)")
            axes.axhline(0, color="0.3", linewidth=1)
        looks = {"teacher": TEACHER, "student": _colour(""), f"student, {NO_TEACHER}": _colour(NO_TEACHER)}
        handles = [Patch(color=colour, label=label) for label, colour in looks.items()]
        if frame["teacher"].duplicated().any():
            handles.append(Line2D([], [], **DOT, label="each seed"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _colour(teacher: str) -> str:
    return look_of("si" if teacher == NO_TEACHER else "lm").colour


def _bar(axes, place: float, values, colour: str, text: str) -> None:
    if len(values):
        axes.bar(place, values.mean(), width=0.38, color=colour)
        above = (place, max(0, values.mean(), values.max()))
        axes.annotate(text.format(values.mean()), above, (0, 4), textcoords="offset points", ha="center", fontsize=8)
    if values.nunique() > 1:
        axes.plot([place] * len(values), values, **DOT)


def _name(axes, names: list[str], label: str) -> None:
    axes.set_xticks(range(len(names)), [fill(name, 14) for name in names])
    axes.set_ylabel(label)
    axes.grid(False, axis="x")
    axes.margins(y=0.14)

"""Figures of `changes`: images by kind of change, gains per class, example images."""

import pandas
from torch import Tensor

from kdhelpers.analysis.changes import KINDS, examples
from kdhelpers.display.colours import colour_of
from kdhelpers.display.style import MAX_WIDTH, new_figure, shorten, styled
from kdhelpers.display.text import signed_text
from kdhelpers.evaluation.predictions import Predictions

RIGHT, WRONG = list(KINDS.values())[:2]
MOST_CLASSES, FADED = 8, 0.4  # at each end of a long list of classes; the part where the teacher is wrong


def change_bars(frame):
    """The frame of `change_frame` as a Figure: images that become right, to the right of 0, and wrong, to its left.

    The faded part is images on which the teacher is wrong. The text is the difference: right minus wrong, and the gain.
    """
    students = list(frame["student"].unique())
    counts = frame.groupby(["student", "change", "teacher_right"], sort=False)["images"].mean()
    with styled():
        figure = new_figure(MAX_WIDTH, 1.2 + 0.42 * max(1, len(students)))
        axes = figure.subplots()
        for row, student in enumerate(students):
            for kind, sign in ((RIGHT, 1), (WRONG, -1)):
                sure, unsure = counts[student, kind, True], counts[student, kind, False]
                axes.barh(row, sign * sure, 0.66, color=colour_of(student))
                axes.barh(row, sign * unsure, 0.66, left=sign * sure, color=colour_of(student), alpha=FADED)
            better, worse = (counts[student, kind].sum() for kind in (RIGHT, WRONG))
            gain = frame.loc[frame["student"] == student, "gain_points"].mean()
            text = f"+{better:.0f} − {worse:.0f} = {signed_text(better - worse, 0)} images, {signed_text(gain)} points"
            axes.annotate(text, (better, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
        axes.axvline(0, color="0.3", linewidth=1)
        axes.set_yticks(range(len(students)), [shorten(student, 40) for student in students])
        axes.set_ylim(max(1, len(students)) - 0.4, -0.6)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + 0.45 * (high - low))  # room for the texts
        axes.xaxis.set_major_formatter(lambda count, _: f"{abs(count):g}")
        axes.grid(False, axis="y")
        axes.set_xlabel("test images: ← right alone, wrong with a teacher · wrong alone, right with a teacher →")
        figure.supxlabel("faded: images on which the teacher itself is wrong", fontsize=8, color="0.3")
    return figure


def class_gain_bars(frame):
    """The frame of `class_gain_frame` as a Figure: a panel per student, its classes of largest and smallest gain."""
    students = list(frame["student"].unique())
    shown = {student: _ends(frame[frame["student"] == student].dropna(subset=["gain_points"])) for student in students}
    rows = max((len(part) for part in shown.values()), default=1)
    columns = min(3, max(1, len(students)))
    lines = -(-len(students) // columns) or 1
    with styled():
        figure = new_figure(MAX_WIDTH, lines * (0.8 + 0.2 * max(rows, 1)) + 0.2)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
        for axes in grid.flat[len(students) :]:
            axes.set_axis_off()
        for axes, (student, part) in zip(grid.flat, shown.items(), strict=False):
            axes.barh(range(len(part)), part["gain_points"], 0.7, color=colour_of(student))
            names = [shorten(name, 16) for name in part["class"]]
            axes.set_yticks(range(len(part)), names, fontsize=8)
            axes.set_ylim(max(1, len(part)) - 0.4, -0.6)
            axes.axvline(0, color="0.3", linewidth=1)
            axes.set_title(shorten(student, 34), fontsize=9)
            axes.grid(False, axis="y")
            axes.set_xlabel("gain (percentage points)")
        cut = f"the {MOST_CLASSES} classes of largest and of smallest gain; " * (rows == 2 * MOST_CLASSES)
        figure.supxlabel(f"{cut}gain over the student alone in the class's test accuracy", fontsize=8, color="0.3")
    return figure


def _ends(classes):
    """All classes, or the first and the last MOST_CLASSES."""
    if len(classes) <= 2 * MOST_CLASSES:
        return classes
    return pandas.concat([classes[:MOST_CLASSES], classes[-MOST_CLASSES:]])


def changed_images(images: Tensor, teacher: Predictions, alone: Predictions, taught: Predictions, class_names):
    """A row of example images for each kind of `examples`, with true class and the predictions alone → with a teacher.

    images: uint8 [N, 3, H, W] in the order of the predictions. A kind without images has an empty row that says so.
    """
    chosen, columns = examples(teacher, alone, taught), 6
    before, after = (predictions.logits.argmax(1).tolist() for predictions in (alone, taught))
    names = [shorten(str(name), 12) for name in class_names]
    with styled():
        figure = new_figure(MAX_WIDTH, 1.75 * len(chosen))
        for rows, (title, places) in zip(figure.subfigures(len(chosen), 1), chosen.items(), strict=True):
            rows.suptitle(title if len(places) else f"{title}: no image", x=0.01, ha="left", fontsize=9, weight="bold")
            for axes in rows.subplots(1, columns):
                axes.set_axis_off()
            for axes, place in zip(rows.axes, places.tolist(), strict=False):
                axes.imshow(images[place].permute(1, 2, 0).numpy())
                true, change = names[alone.labels[place]], f"{names[before[place]]} → {names[after[place]]}"
                axes.set_title(f"{true}\n{change}", fontsize=7, fontweight="normal", pad=2)
    return figure

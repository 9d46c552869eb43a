"""Curves of trainings: a panel per loss term, then the accuracy; a name at the end of each line."""

import math
import re
from textwrap import wrap

import pandas

from kdhelpers.display.colours import colour_of, method_of
from kdhelpers.display.placing import label_ends
from kdhelpers.display.progress import VALIDATION, loss_terms
from kdhelpers.display.style import LINES, PALETTE, TEACHER_LINE, grid_shape, new_figure, panel_grid, styled

MOST_LINES = 6  # in a panel
HYPERPARAMETERS = re.compile(r" \(([^()]*=[^()]*|single run)\)")  # and numbers of seeds, in a label
ACCURACIES = ("train_top1_pct", VALIDATION)
ACCURACY = "accuracy"  # a panel's title
THIN = {"linewidth": 0.8, "alpha": 0.7}


def curves(records: dict[str, list[dict]], teacher_top1_pct: float | None = None):
    """A panel per loss term, then accuracy: training thin, validation thick, the teacher's test accuracy dashed.

    records: label -> history, the rows as in a result record. A run has a line in the panels of its own terms only.
    A run whose classifier is fitted after the training has no accuracy; the accuracy panel needs one run that has.
    More than six runs have panels of their accuracy alone: first those of the highest last validation accuracy, then
    the next ones. The student without a teacher is in each of these panels.
    """
    if len(records) > MOST_LINES and any(map(_has(*ACCURACIES), records.values())):
        return accuracies({ACCURACY: records}, teacher_top1_pct)
    terms = list(dict.fromkeys(term for history in records.values() for row in history for term in loss_terms(row)))
    panels = [(term, f"{term} loss", part) for term in terms for part in _parts(_with(records, term))]
    if not terms or any(map(_has(*ACCURACIES), records.values())):
        panels.append((VALIDATION, ACCURACY, records))
    return _figure(panels, teacher_top1_pct)


def accuracies(groups: dict[str, dict[str, list[dict]]], teacher_top1_pct: float | None = None):
    """The accuracy panels of `curves` for each group of runs, under its title; all on one scale of accuracy."""
    split = {title: _parts(_with(records, *ACCURACIES)) for title, records in groups.items()}
    panels = [
        (VALIDATION, title + f" ({number} of {len(parts)})" * (len(parts) > 1), part)
        for title, parts in split.items()
        for number, part in enumerate(parts, 1)
    ]
    return _figure(panels, teacher_top1_pct)


def _figure(panels: list[tuple[str, str, dict]], teacher_top1_pct: float | None):
    """panels: the key of a history row that a panel shows, its title, its runs."""
    labels = list(dict.fromkeys(label for _, _, part in panels for label in part))
    names, looks = short_names(labels), line_looks(labels)
    with styled():
        shape = grid_shape(len(panels), 2)
        figure = new_figure(4.5 * shape[1], 2.44 * shape[0] + 0.1)
        grid = list(panel_grid(figure, shape, len(panels)).flat)[: len(panels)]
        figure.get_layout_engine().set(w_pad=0.1)  # a text's width depends on the resolution
        ends = {}
        for axes, (key, title, part) in zip(grid, panels, strict=True):
            ends[axes] = _draw(axes, key, part, names, looks, teacher_top1_pct)
            axes.set_title(title, loc="left", fontsize=9)
        for shown in {key for key, _, _ in panels}:
            _same_limits([axes for axes, (key, _, _) in zip(grid, panels, strict=True) if key == shown])
        label_ends(ends)
    return figure


def _with(records: dict[str, list[dict]], *keys: str) -> dict[str, list[dict]]:
    """The runs whose history has one of the keys."""
    return {label: history for label, history in records.items() if _has(*keys)(history)}


def _parts(records: dict[str, list[dict]]) -> list[dict[str, list[dict]]]:
    """Parts of at most MOST_LINES runs; several parts begin with the student without a teacher, if there is one."""
    if len(records) <= MOST_LINES:
        return [records]
    shared = [label for label in records if method_of(label) == "si"][:1]
    rest = sorted((label for label in records if label not in shared), key=lambda label: -_last(records[label]))
    size = math.ceil(len(rest) / math.ceil(len(rest) / (MOST_LINES - len(shared))))
    starts = range(0, len(rest), size)
    return [{label: records[label] for label in [*shared, *rest[start : start + size]]} for start in starts]


def _last(history: list[dict]) -> float:
    """The last validation accuracy, else that of training."""
    found = (row.get(VALIDATION, row.get("train_top1_pct")) for row in reversed(history))
    return next((value for value in found if value is not None), -1.0)


def _has(*keys: str):
    return lambda history: any(row.get(key) is not None for row in history for key in keys)


def short_names(labels: list[str]) -> dict[str, str]:
    """label -> it without number of seeds, and without the hyperparameters that all labels of its method share."""
    bare = {label: HYPERPARAMETERS.sub("", label) for label in labels}
    values = {label: _values(label) for label in labels}
    names = {}
    for label, name in bare.items():
        alike = [values[other] for other in labels if bare[other] == name]
        own = [value for value in values[label] if not all(value in other for other in alike)]
        marked = HYPERPARAMETERS.sub("", HYPERPARAMETERS.sub("\0", label, count=1))
        names[label] = marked.replace("\0", f" ({', '.join(own)})") if own else name
    return names


def _values(label: str) -> list[str]:
    return [value for group in HYPERPARAMETERS.findall(label) for value in group.split(", ")]


def line_looks(labels: list[str]) -> dict[str, dict]:
    """label -> colour of its method and a line style; labels of one colour differ in their style."""
    colours = [colour_of(label, PALETTE[number % len(PALETTE)]) for number, label in enumerate(labels)]
    earlier = [colours[:number].count(colour) for number, colour in enumerate(colours)]
    return {
        label: {"color": colour, "linestyle": LINES[count % len(LINES)]}
        for label, colour, count in zip(labels, colours, earlier, strict=True)
    }


def _draw(axes, key: str, part: dict, names: dict, looks: dict, teacher_top1_pct: float | None) -> list[tuple]:
    """The lines of a panel; returns their ends: (x, y, text, colour)."""
    is_accuracy, validated = key == VALIDATION, any(map(_has(VALIDATION), part.values()))
    ends = []
    for label, history in part.items():
        shown = "train_top1_pct" if is_accuracy and not _has(VALIDATION)(history) else key
        thin = THIN if is_accuracy and validated else {}
        if is_accuracy and shown == VALIDATION:
            _line(axes, history, "train_top1_pct", **looks[label] | thin)
        line = _line(axes, history, shown, **looks[label] | (thin if shown != key else {}), label=label)
        ends += [(*line, end_text(names[label]), looks[label]["color"])] if line else []
    accuracy = "validation top-1 (%),\nthin: training" if validated else "training top-1 (%)"
    epoch_axis(axes, accuracy if is_accuracy else "loss (weighted)")
    if is_accuracy and teacher_top1_pct is not None:
        axes.axhline(teacher_top1_pct, **TEACHER_LINE, label="teacher")
        ends.append((axes.get_xlim()[1], teacher_top1_pct, f"teacher\n(test {teacher_top1_pct:.1f} %)", "black"))
    return ends


def end_text(name: str) -> str:
    """At most three lines of a name."""
    return "\n".join(wrap(name, 24, max_lines=3, placeholder="…"))


def _same_limits(panels: list) -> None:
    low, high = zip(*(axes.get_ylim() for axes in panels), strict=True)
    for axes in panels:
        axes.set(xlim=axes.get_xlim(), ylim=(min(low), max(high)))


def history_frame(records: dict[str, list[dict]]):
    """The data of `curves` as a DataFrame: a row per run and epoch, the run's label in column `run`."""
    return pandas.DataFrame([{"run": label, **row} for label, history in records.items() for row in history])


def live(history: list[dict], epochs: int):
    """A run during its training, loss terms left, accuracies right, the axis as long as the planned epochs.

    For runs in lockstep: the loss and the validation accuracy of every run.
    """
    terms = list(dict.fromkeys(term for row in history for term in loss_terms(row)))
    many = len(terms) > len(PALETTE)  # their legend would hide the lines
    with styled():
        figure = new_figure(6.4, 2.0 + (0.2 * math.ceil(len(terms) / 2) if many else 0))
        losses, accuracy = figure.subplots(1, 2)
        for number, term in enumerate(terms):
            _line(losses, history, term, **_look(number), label=term)
        keys = dict.fromkeys(key for row in history for key in row if key.endswith("top1_pct"))
        for number, key in enumerate(keys):
            name = key.removesuffix(VALIDATION).strip()  # the student's, in lockstep
            label = {"train_top1_pct": "training", "": "validation"}.get(name, name)
            _line(accuracy, history, key, **_look(number), label=label)
        for axes, label in ((losses, "loss"), (accuracy, "top-1 accuracy (%)")):
            epoch_axis(axes, label)
            axes.set_xlim(0.5, epochs + 0.5)
            axes.locator_params(axis="y", nbins=5)  # else the layout's last step may change the labels it made room for
            if axes.lines and not many:
                axes.legend(loc="best")
        if many:
            figure.legend(*losses.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        if not accuracy.lines:
            accuracy.text(0.5, 0.5, "measured at the end", transform=accuracy.transAxes, ha="center", color="0.4")
    return figure


def _look(number: int) -> dict:
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": LINES[number // len(PALETTE) % len(LINES)]}


def _line(axes, history: list[dict], key: str, **look) -> tuple[float, float] | None:
    """Draws a line; returns its last point, or None for a history without the key."""
    points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) == 1 else None, markersize=4, **look)
    return points[-1] if points else None


def epoch_axis(axes, label: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.margins(x=0.02)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)

"""Data in, matplotlib Figure out. Figures stand alone: no pyplot state, no show(), nothing left open.

A notebook shows a figure that ends a cell (after `notebook.setup()`); `save` writes it with the data behind it.
"""

import io
import math
import os
import re
from pathlib import Path

from kdhelpers import artifacts
from kdhelpers.display.progress import VALIDATION, loss_terms
from kdhelpers.display.text import MARK, evidence_note, mark_meaning

DOTS_PER_INCH = 150
# Okabe and Ito's colours, told apart by colour-blind readers too; black is kept for the teacher.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
TEACHER_LINE = {"color": "black", "linestyle": "--", "linewidth": 1.2}
LINES = ("-", "-.", (0, (1, 1.2)))  # once the colours are used up; dashed is the teacher's
STYLE = {
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.4",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "text.parse_math": False,  # a class may be called a$_$, which is no formula
}


def styled():
    """Context in which figures are made and drawn in the house style, whatever the user's settings are afterwards."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float):
    """An empty Figure of that many inches that lays out its own parts without overlap."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    """The figure as the bytes of a PNG file."""
    with styled():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=dots_per_inch)
    return file.getvalue()


def save(figure, name: str, data=None, dots_per_inch: int = DOTS_PER_INCH) -> Path:
    """Write plots/<name>.png and the DataFrame behind it as plots/<name>.csv; returns the PNG's path.

    Raises ValueError for a name that is no file name, OSError where the folder cannot be written.
    """
    path = _path(name, "png")
    if data is not None:
        artifacts.write_atomic(_path(name, "csv"), data.to_csv(index=False).encode())
    return artifacts.write_atomic(path, png(figure, dots_per_inch))


def save_page(page: str, name: str) -> Path:
    """Write an HTML page as plots/<name>.html, where the gallery finds it; returns its path. Raises as `save` does."""
    if name == "index":
        raise ValueError("name = 'index': is the gallery's own page; choose another")
    return artifacts.write_atomic(_path(name, "html"), page.encode())


def _path(name: str, extension: str) -> Path:
    if not re.fullmatch(r"[\w.=+-]+", name):
        raise ValueError(f"name = {name!r}: is no file name; use letters, digits and . _ - = + only")
    return artifacts.folder("plots") / f"{name}.{extension}"


def curves_name(trained, teacher: str | None = None, named: bool = False) -> str:
    """What the picture of a run's curves is called: <name>_curves.

    Those of a teacher on Imagenette, and of a student that one of architecture `teacher` taught by ConKD with Lion, are
    called as users of that study know them, unless the user `named` the run or another has its derived name:
    resnet101-teacher_output, resnet101-18-teacher-student_output. Another method or optimiser is another picture.
    """
    run = trained.run
    published = run.role == "teacher" or (teacher and (run.method, run.optimizer) == ("conkd", "lion"))
    own_name = trained.name == run.artifact_name and not (named or run.start_from)
    if not (run.dataset == "imagenette" and published and own_name):
        return f"{trained.name}_curves"
    family = os.path.commonprefix([teacher or "", run.model]).rstrip("0123456789")
    kind = f"{teacher}-{run.model.removeprefix(family)}-teacher-student" if teacher else f"{run.model}-teacher"
    return f"{kind}_output" + (f"_seed{run.seed}" if run.seed else "")


def samples(images, titles, columns: int = 8):
    """A grid of uint8 images [N, 3, H, W] (tensor or array), each under its title; at most `columns` in a row."""
    if len(images) != len(titles):
        raise ValueError(f"titles: {len(titles)} given for {len(images)} images; give one per image")
    columns = max(1, min(columns, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    with styled():
        figure = new_figure(1.15 * columns, 1.35 * rows)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, image, title in zip(grid, images, titles, strict=False):
            axes.imshow(image.permute(1, 2, 0).cpu().numpy() if hasattr(image, "permute") else image.transpose(1, 2, 0))
            axes.set_title(shorten(str(title), 16), fontsize=8, fontweight="normal", pad=3)
    return figure


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def curves(records: dict[str, list[dict]], teacher_top1_pct: float | None = None):
    """A panel per loss term, then accuracy: training thin, validation thick, the teacher's test accuracy dashed.

    records: label -> history, the rows as in a result record. A term that a run does not have is left out for that run;
    runs whose classifier is fitted afterwards have no accuracy to show, and where none has one that panel is left out.
    """
    terms = list(dict.fromkeys(term for history in records.values() for row in history for term in loss_terms(row)))
    panels = [*terms, *(["accuracy"] if any(map(_has_accuracy, records.values())) or not terms else [])]
    columns = min(3, len(panels))
    if len(panels) == 4 and max(map(len, records)) < 80:  # two rows of two, where the legend is not wider
        columns = 2
    rows = math.ceil(len(panels) / columns)
    with styled():
        figure = new_figure(3.4 * columns, 2.7 * rows + 0.2 * (len(records) + 1))
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, term in zip(grid, terms, strict=False):
            for number, (label, history) in enumerate(records.items()):
                _line(axes, history, term, **_look(number), label=label)
            _epoch_axis(axes, f"{term} loss", "loss (weighted)")
        if len(panels) > len(terms):
            _draw_accuracy(grid[len(terms)], records, teacher_top1_pct)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        _common_legend(figure, grid[: len(panels)], list(records), columns)
    return figure


def _has_accuracy(history: list[dict]) -> bool:
    return any(row.get(key) is not None for row in history for key in ("train_top1_pct", "val_top1_pct"))


def _draw_accuracy(axes, records: dict[str, list[dict]], teacher_top1_pct: float | None) -> None:
    for number, (label, history) in enumerate(records.items()):
        _line(axes, history, "train_top1_pct", **_look(number) | {"linewidth": 0.8, "alpha": 0.7})
        _line(axes, history, "val_top1_pct", **_look(number), label=label)
    if teacher_top1_pct is not None:
        axes.axhline(teacher_top1_pct, **TEACHER_LINE, label=f"teacher (test {teacher_top1_pct:.1f} %)")
    _epoch_axis(axes, "validation (thin: training)", "top-1 accuracy (%)")


def _common_legend(figure, panels, order: list[str], columns: int) -> None:
    """One legend below for all panels, each label once, in the given order; others (the teacher) come last."""
    pairs = (axes.get_legend_handles_labels() for axes in panels)
    found = {label: handle for handles, labels in pairs for handle, label in zip(handles, labels, strict=True)}
    labels = sorted(found, key=lambda label: order.index(label) if label in order else len(order))
    if labels:
        fitting = int(3.4 * columns / (0.5 + 0.06 * max(map(len, labels))))  # handle and letters, in inches
        ncols = max(1, min(len(labels), columns, fitting))
        figure.legend([found[label] for label in labels], labels, loc="outside lower center", ncols=ncols)


def history_frame(records: dict[str, list[dict]]):
    """The numbers behind `curves` as a DataFrame: a row per run and epoch, the run's label in column `run`."""
    import pandas

    return pandas.DataFrame([{"run": label, **row} for label, history in records.items() for row in history])


def live(history: list[dict], epochs: int):
    """A run as it trains: its loss terms beside its accuracies, over the epochs that are planned; of several runs in
    lockstep the loss and the validation accuracy of each."""
    with styled():
        figure = new_figure(6.4, 2.0)
        losses, accuracy = figure.subplots(1, 2)
        for number, term in enumerate(dict.fromkeys(term for row in history for term in loss_terms(row))):
            _line(losses, history, term, **_look(number), label=term)
        keys = dict.fromkeys(key for row in history for key in row if key.endswith("top1_pct"))
        for number, key in enumerate(keys):
            name = key.removesuffix(VALIDATION).strip()  # of students in lockstep
            label = {"train_top1_pct": "training", "": "validation"}.get(name, name)
            _line(accuracy, history, key, **_look(number), label=label)
        for axes, label in ((losses, "loss"), (accuracy, "top-1 accuracy (%)")):
            _epoch_axis(axes, "", label)
            axes.set_xlim(0.5, epochs + 0.5)
            if axes.lines:
                axes.legend(loc="best")
        if not accuracy.lines:
            accuracy.text(0.5, 0.5, "measured at the end", transform=accuracy.transAxes, ha="center", color="0.4")
    return figure


def _look(number: int) -> dict:
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": LINES[number // len(PALETTE) % len(LINES)]}


def _line(axes, history: list[dict], key: str, **look) -> None:
    points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) == 1 else None, markersize=4, **look)


def _epoch_axis(axes, title: str, label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def bars(summary):
    """Test top-1 of each setting of a `results.summarize` frame: mean, standard deviation as whisker, n in the label.

    The labels are the column `row`. A bar starts at zero, so its length is the accuracy; a single run has no whisker.
    The teacher is grey, and dashed where there is one alone.
    """
    rows = summary.iloc[::-1].to_dict("records")  # barh draws upwards
    labels = list(summary["row"])[::-1]
    teachers = [row["test_top1_pct"] for row in rows if row["role"] == "teacher"]
    with styled():
        figure = new_figure(4.4 + 0.075 * max(map(len, labels), default=0), 0.9 + 0.32 * max(1, len(rows)))
        axes = figure.subplots()
        for place, row in enumerate(rows):
            _bar(axes, place, row)
        axes.set_yticks(range(len(rows)), labels)
        if len(teachers) == 1 and summary["dataset"].nunique() == 1:  # it must be clear whose line it is
            axes.axvline(*teachers, zorder=0.9, **TEACHER_LINE)
        axes.set_xlim(0, 1.15 * max((row["test_top1_pct"] for row in rows), default=100))
        axes.set_xlabel("test top-1 accuracy (%), mean ± std over seeds")
        warnings = [evidence_note(summary["dataset"]), mark_meaning(summary["notes"])]
        axes.set_title(" · ".join(filter(None, warnings)), loc="left", color="#B03A2E")
        axes.grid(False, axis="y")
    return figure


def _bar(axes, place: int, row: dict) -> None:
    mean, spread = row["test_top1_pct"], row["test_top1_std_pct"]
    whisker = None if math.isnan(spread) else spread
    axes.barh(
        place,
        mean,
        height=0.62,
        color="0.6" if row["role"] == "teacher" else PALETTE[0],
        xerr=whisker,
        error_kw={"ecolor": "0.15", "capsize": 3, "elinewidth": 1},
    )
    axes.annotate(
        f"{mean:.1f}{MARK * bool(row['notes'])}",
        (mean + (whisker or 0), place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
    )

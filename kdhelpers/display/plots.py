"""matplotlib Figures from records and frames. No function uses pyplot's state or calls show().

A notebook shows a figure that ends a cell (after `notebook.setup()`); `save` writes it with its data.
"""

import io
import math
import re
from pathlib import Path

import matplotlib
import pandas
from matplotlib.figure import Figure

from kdhelpers import artifacts
from kdhelpers.display.progress import VALIDATION, loss_terms
from kdhelpers.display.text import MARK, evidence_note, mark_meaning

MAX_WIDTH = 9.0  # inches of a figure; notebooks show 100 dots per inch, and 900 fit on a page
DOTS_PER_INCH = 150
# Okabe and Ito's colours, distinct for colour-blind readers too; black is the teacher's.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
TEACHER_LINE = {"color": "black", "linestyle": "--", "linewidth": 1.2}
LINES = ("-", "-.", (0, (1, 1.2)))  # after the last colour; dashed is the teacher's
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
    "text.parse_math": False,  # a class may be called a$_$, which is not a formula
}


def styled():
    """Context that makes and draws figures in the house style; the user's settings stay as they are."""
    return matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float):
    """An empty Figure, `width` by `height` inches, whose layout keeps its parts apart."""
    return Figure(figsize=(width, height), layout="constrained")


def grid_shape(count: int, columns: int) -> tuple[int, int]:
    """(rows, columns) of a grid for `count` panels, at most `columns` wide and at least 1x1."""
    columns = max(1, min(columns, count))
    return max(1, math.ceil(count / columns)), columns


def panel_grid(parent, shape: tuple[int, int], count: int, **options):
    """Axes [rows, columns] of a figure or subfigure; the axes after the first `count` are hidden."""
    grid = parent.subplots(*shape, squeeze=False, **options)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return grid


def png(figure, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    """The figure as the bytes of a PNG file."""
    with styled():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=dots_per_inch)
    return file.getvalue()


def save(figure, name: str, data=None, dots_per_inch: int = DOTS_PER_INCH) -> Path:
    """Write plots/<name>.png and its DataFrame as plots/<name>.csv; returns the PNG's path.

    Raises ValueError for a name that is not a file name, OSError if the folder is not writable.
    """
    path = _path(name, "png")
    if data is not None:
        artifacts.write_atomic(_path(name, "csv"), data.to_csv(index=False).encode())
    return artifacts.write_atomic(path, png(figure, dots_per_inch))


def save_page(page: str, name: str) -> Path:
    """Write an HTML page as plots/<name>.html, for the gallery; returns its path. Raises the errors of `save`."""
    if name == "index":
        raise ValueError("name = 'index': is the name of the gallery's page; choose another")
    return artifacts.write_atomic(_path(name, "html"), page.encode())


def _path(name: str, extension: str) -> Path:
    if not re.fullmatch(r"[\w.=+-]+", name):
        raise ValueError(f"name = {name!r}: is not a file name; use letters, digits and . _ - = + only")
    return artifacts.folder("plots") / f"{name}.{extension}"


def samples(images, titles, columns: int = 8):
    """A grid of uint8 images [N, 3, H, W] (tensor or array), every image under its title; at most `columns` in a row.

    Raises ValueError unless there is one title per image.
    """
    if len(images) != len(titles):
        raise ValueError(f"titles: {len(titles)} given for {len(images)} images; give one per image")
    rows, columns = grid_shape(len(images), columns)
    with styled():
        figure = new_figure(1.15 * columns, 1.35 * rows)
        grid = panel_grid(figure, (rows, columns), 0)
        for axes, image, title in zip(grid.flat, images, titles, strict=False):
            axes.imshow(image.permute(1, 2, 0).cpu().numpy() if hasattr(image, "permute") else image.transpose(1, 2, 0))
            axes.set_title(shorten(str(title), 16), fontsize=8, fontweight="normal", pad=3)
    return figure


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def curves(records: dict[str, list[dict]], teacher_top1_pct: float | None = None):
    """A panel per loss term, then accuracy: training thin, validation thick, the teacher's test accuracy dashed.

    records: label -> history, the rows as in a result record. A run has a line in the panels of its own terms only.
    A run whose classifier is fitted after the training has no accuracy; the accuracy panel needs one run that has.
    """
    terms = list(dict.fromkeys(term for history in records.values() for row in history for term in loss_terms(row)))
    panels = [*terms, *(["accuracy"] if any(map(_has_accuracy, records.values())) or not terms else [])]
    square = len(panels) == 4 and max(map(len, records)) < 80  # two rows of two, unless the legend is wider
    rows, columns = grid_shape(len(panels), 2 if square else 3)
    with styled():
        figure = new_figure(3.4 * columns, 2.7 * rows + 0.2 * (len(records) + 1))
        grid = panel_grid(figure, (rows, columns), len(panels)).ravel()
        for axes, term in zip(grid, terms, strict=False):
            for number, (label, history) in enumerate(records.items()):
                _line(axes, history, term, **_look(number), label=label)
            _epoch_axis(axes, f"{term} loss", "loss (weighted)")
        if len(panels) > len(terms):
            _draw_accuracy(grid[len(terms)], records, teacher_top1_pct)
        _common_legend(figure, grid[: len(panels)], list(records), columns)
    return figure


def _has_accuracy(history: list[dict]) -> bool:
    return any(row.get(key) is not None for row in history for key in ("train_top1_pct", "val_top1_pct"))


def _draw_accuracy(axes, records: dict[str, list[dict]], teacher_top1_pct: float | None) -> None:
    validated = any(row.get("val_top1_pct") is not None for history in records.values() for row in history)
    thin = {"linewidth": 0.8, "alpha": 0.7} if validated else {}
    for number, (label, history) in enumerate(records.items()):
        _line(axes, history, "train_top1_pct", **_look(number) | thin)
        _line(axes, history, "val_top1_pct", **_look(number), label=label)
    if teacher_top1_pct is not None:
        axes.axhline(teacher_top1_pct, **TEACHER_LINE, label=f"teacher (test {teacher_top1_pct:.1f} %)")
    _epoch_axis(axes, "validation (thin: training)" if validated else "training", "top-1 accuracy (%)")


def _common_legend(figure, panels, order: list[str], columns: int) -> None:
    """One legend below all panels, every label once, in the given order; other labels (the teacher) come last."""
    pairs = (axes.get_legend_handles_labels() for axes in panels)
    handles = {label: handle for pair in pairs for handle, label in zip(*pair, strict=True)}
    labels = sorted(handles, key=lambda label: order.index(label) if label in order else len(order))
    if labels:
        ncols = _legend_columns(labels, columns)
        figure.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=ncols)


def _legend_columns(labels: list[str], columns: int) -> int:
    """The columns of a legend below `columns` panels: fewer if the labels are long."""
    fit = int(3.4 * columns / (0.5 + 0.06 * max(map(len, labels))))  # handle and letters in inches
    return max(1, min(len(labels), columns, fit))


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
        figure = new_figure(6.4, 2.0 + (0.2 * len(terms) / _legend_columns(terms, 2) if many else 0))
        losses, accuracy = figure.subplots(1, 2)
        for number, term in enumerate(terms):
            _line(losses, history, term, **_look(number), label=term)
        keys = dict.fromkeys(key for row in history for key in row if key.endswith("top1_pct"))
        for number, key in enumerate(keys):
            name = key.removesuffix(VALIDATION).strip()  # the student's, in lockstep
            label = {"train_top1_pct": "training", "": "validation"}.get(name, name)
            _line(accuracy, history, key, **_look(number), label=label)
        for axes, label in ((losses, "loss"), (accuracy, "top-1 accuracy (%)")):
            _epoch_axis(axes, "", label)
            axes.set_xlim(0.5, epochs + 0.5)
            axes.locator_params(axis="y", nbins=5)  # else the layout's last step may change the labels it made room for
            if axes.lines and not many:
                axes.legend(loc="best")
        if many:
            _common_legend(figure, (losses, accuracy), terms, columns=2)
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
    """Test top-1 of every setting of a `results.summarize` frame: mean, standard deviation as whisker, n in the label.

    The labels are the column `row`. A bar starts at zero, so its length is the accuracy; a single run has no whisker.
    Teachers are grey; a single teacher is also a dashed line.
    """
    rows = summary.iloc[::-1].to_dict("records")  # barh draws upwards
    labels = list(summary["row"])[::-1]
    teachers = [row["test_top1_pct"] for row in rows if row["role"] == "teacher"]
    with styled():
        figure = new_figure(4.4 + 0.075 * max(map(len, labels), default=0), 0.9 + 0.32 * max(1, len(rows)))
        axes = figure.subplots()
        for position, row in enumerate(rows):
            _bar(axes, position, row)
        axes.set_yticks(range(len(rows)), labels)
        if len(teachers) == 1 and summary["dataset"].nunique() == 1:  # else the line could be any teacher's
            axes.axvline(*teachers, zorder=0.9, **TEACHER_LINE)
        axes.set_xlim(0, 1.15 * max((row["test_top1_pct"] for row in rows), default=100))
        axes.set_xlabel("test top-1 accuracy (%), mean ± std over seeds")
        warnings = [evidence_note(summary["dataset"]), mark_meaning(summary["notes"])]
        axes.set_title(" · ".join(filter(None, warnings)), loc="right", color="#B03A2E")
        axes.grid(False, axis="y")
    return figure


def _bar(axes, position: int, row: dict) -> None:
    mean, spread = row["test_top1_pct"], row["test_top1_std_pct"]
    whisker = None if math.isnan(spread) else spread
    color = "0.6" if row["role"] == "teacher" else PALETTE[0]
    error = {"ecolor": "0.15", "capsize": 3, "elinewidth": 1}
    axes.barh(position, mean, height=0.62, color=color, xerr=whisker, error_kw=error)
    text, end = f"{mean:.1f}{MARK * bool(row['notes'])}", (mean + (whisker or 0), position)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    axes.annotate(text, end, xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, bbox=box)

"""What a notebook needs besides the experiment: set-up, a progress display that updates in place, tables.

Everything shown is plain HTML, text and PNG: it needs no widgets and no JavaScript, so it looks the same in Jupyter,
Colab, papermill's executed copies and nbconvert's pages.
"""

from __future__ import annotations

import base64
import math
import platform
import sys
import time
from html import escape
from pathlib import Path

import kdhelpers
from kdhelpers import artifacts, plots
from kdhelpers.html import Html, element, join
from kdhelpers.progress import TerminalProgress, TimedProgress, duration, record_text, row_text
from kdhelpers.results import caption, magnitude_text, results, spread_text, summarize

SHADE = "background-color: rgba(0, 114, 178, 0.14)"  # readable on light and dark pages


def setup() -> None:
    """Print the versions, the device and where artifacts go; make figures that end a cell show as pictures."""
    import torch

    kept = ", ".join(artifacts.FOLDERS[kind] for kind in ("weights", "plots", "results"))
    print(f"python {platform.python_version()} · torch {torch.__version__} · kdhelpers {kdhelpers.__version__}\n"
          f"device: {device_text()}\nartifacts: {kept} in {artifacts.root()}")
    if shell := _kernel_shell():
        formatter = shell.display_formatter.formatters["image/png"]
        # By name, since matplotlib is not imported yet.
        formatter.for_type_by_name("matplotlib.figure", "Figure", lambda figure: plots.png(figure, 100))


def device_text() -> str:
    """The device that `fit` will take, with what it has, and the precision that "auto" means there."""
    import torch

    from kdhelpers.loop import resolve_precision
    from kdhelpers.train import pick_device

    device = pick_device()
    precision = resolve_precision("auto", device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {precision}"
    note = " (no native bf16)" if precision == "fp32" else ""
    return f"{device.type.upper()}, {torch.get_num_threads()} threads, {precision}{note}"


def _kernel_shell():
    """The shell of the Jupyter kernel that runs us; None in a script or a terminal."""
    module = sys.modules.get("IPython")  # a process that never imported it is no kernel
    shell = module.get_ipython() if module else None
    return shell if hasattr(shell, "kernel") else None


class LiveProgress(TimedProgress):
    """One output updated in place: bar, epoch, time left, loss terms, validation accuracy, images/s, the curve so far.

    Its last state stays in the saved notebook. Outside a Jupyter kernel this makes a `TerminalProgress` instead.
    """

    interval = 0.5  # seconds; each update carries the whole output, picture included

    def __new__(cls):
        return super().__new__(cls) if _kernel_shell() else TerminalProgress()

    def begin(self, name: str, epochs: int, steps: int, done: int) -> None:
        self.display = None
        self.picture = Html("")
        self.pictured_rows, self.pictured_at = 0, -math.inf
        super().begin(name, epochs, steps, done)

    def draw(self) -> None:
        from IPython.display import display

        self._draw_curve()
        content = {"text/html": str(self._html()), "text/plain": " · ".join(filter(None, self._lines()))}
        if self.display is None:
            self.display = display(content, raw=True, display_id=True)
        else:
            self.display.update(content, raw=True)

    def _draw_curve(self) -> None:
        ended, rows = self.record is not None, len(self.history)
        # Short epochs come faster than a picture is worth: it costs about 0.1 s.
        if rows > self.pictured_rows and (ended or time.monotonic() - self.pictured_at > 2):
            encoded = base64.b64encode(plots.png(plots.live(self.history, self.epochs), 110)).decode()
            self.picture = element("img", src=f"data:image/png;base64,{encoded}", width=640, alt="losses and accuracy")
            self.pictured_rows, self.pictured_at = rows, time.monotonic()

    def _lines(self) -> tuple[str, str]:
        latest = row_text(self.history[-1]) if self.history else ""
        if self.record is not None:
            return f"{self.name}: {record_text(self.record)}", latest
        elapsed, left = time.monotonic() - self.started, self.eta_seconds()
        parts = [f"{self.name}: epoch {min(self.done + 1, self.epochs)}/{self.epochs}", duration(elapsed)]
        return " · ".join(parts + ([f"{duration(left)} left"] if left is not None else [])), latest

    def _html(self) -> Html:
        headline, latest = self._lines()
        bar = element("progress", value=self.count, max=self.epochs * self.steps or 1, style="width: 100%")
        parts = [element("div", headline), bar, element("div", latest), self.picture]
        return element("div", join(parts), style="max-width: 640px; font-size: 90%")


def run_table(run):
    """The fields of a `Run`, or of anything with `model_dump()`, as a table: non-defaults first and in bold."""
    import pandas

    values = run.model_dump()
    chosen = _chosen(run, values)
    order = sorted(values, key=lambda name: name not in chosen)
    fields = getattr(type(run), "model_fields", {})
    table = pandas.DataFrame({
        "setting": order,
        "value": [_value_text(values[name]) for name in order],
        "meaning": [getattr(fields.get(name), "description", None) or "" for name in order],
    })
    bold = ["font-weight: bold" if name in chosen else "" for name in order]
    styler = table.style.apply(lambda _: bold, subset=["setting"]).apply(lambda _: bold, subset=["value"])
    return _plain(styler, f"{getattr(run, 'artifact_name', type(run).__name__)} · bold: differs from the default")


def _chosen(run, values: dict) -> set[str]:
    """The fields that differ from their defaults; options differ if leaving them out would give others."""
    fields = getattr(type(run), "model_fields", {})
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    chosen = {name for name, value in values.items() if name not in defaults or value != defaults[name]}
    options = {name for name in chosen if isinstance(values[name], dict) and name in fields}
    if options:  # a Run completes them with the defaults of its method, optimiser and schedule
        completed = type(run)(**{name: values[name] for name in chosen - options}).model_dump()
        chosen -= {name for name in options if completed[name] == values[name]}
    return chosen


def _value_text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "–"
    return "–" if value is None else str(value)


def results_table(dataset: str | None = None, highlight: str | None = None):
    """Every stored setting on `dataset` (None: on all): mean ± spread over seeds, gain, share of the teacher gap.

    The best student of each model and budget is in bold; the setting that the stored run `highlight` belongs to is
    shaded. The caption states n, the selection rule, budget and device; those that vary have a column. Raises
    ValueError if `highlight` is not a finished run here.
    """
    frame = results(dataset)
    summary = summarize(frame)
    shaded = frame.loc[frame["name"] == highlight, "setting"]
    if highlight is not None and shaded.empty:
        known = ", ".join(frame["name"]) or "none"
        raise ValueError(f"highlight = {highlight}: not a finished run on {dataset or 'any data set'}; known: {known}")
    best = _best(summary)
    table = _result_texts(summary)
    styler = table.style.apply(_mark, axis=1, flags=summary["setting"].isin(shaded), css=SHADE)
    styler = styler.apply(_mark, axis=1, flags=best, css="font-weight: bold")
    return _plain(styler, _results_caption(summary, dataset, bool(best.any()), highlight))


def _result_texts(summary):
    """The summary as the texts that a reader sees; columns that say the same in every row are left to the caption."""
    import pandas

    def texts(form, *fields):
        return [form(*values) for values in zip(*(summary[field] for field in fields), strict=True)]

    columns = {
        "data": summary["dataset"],
        "method": summary["label"],
        "model": summary["model"],
        "teacher": summary["teacher"],
        "test top-1 (%)": texts(spread_text, "test_top1_pct", "test_top1_std_pct", "n"),
        "n": summary["n"],
        "gain (points)": texts(_gain_text, "gain_points"),
        "paired gain (points)": texts(_paired_text, "paired_gain_points", "paired_gain_std_points", "paired_n"),
        "gap closed (%)": texts(lambda share: "–" if math.isnan(share) else f"{share:.0f}", "gap_closed_pct"),
        "parameters": texts(magnitude_text, "parameters"),
        "MACs": texts(magnitude_text, "macs"),
        "s/epoch": texts(lambda seconds: "–" if math.isnan(seconds) else f"{seconds:.3g}", "seconds_per_epoch"),
        **{field: summary[field] for field in ("selection", "budget", "device")},
    }
    constant = {"data": "dataset", "selection": "selection", "budget": "budget", "device": "device"}
    dropped = [column for column, field in constant.items() if summary[field].nunique() <= 1]
    return pandas.DataFrame(columns).drop(columns=dropped)


def _gain_text(points: float) -> str:
    return "–" if math.isnan(points) else f"{points:+.2f}"


def _paired_text(mean: float, std: float, n: float) -> str:
    if math.isnan(mean):
        return "–"
    return f"{mean:+.2f} (1 seed)" if n == 1 else f"{mean:+.2f} ± {std:.2f} ({n:.0f} seeds)"


def _best(summary):
    """Flags the best student among those that can be compared: of one data set, model and budget, and more than one."""
    students = summary[summary["role"] == "student"]
    rivals = students.groupby(["dataset", "model", "budget"])["test_top1_pct"]
    winners = students.index[(rivals.transform("max") == students["test_top1_pct"]) & (rivals.transform("size") > 1)]
    return summary.index.isin(winners)


def _mark(row, flags, css: str) -> list[str]:
    return [css if flags[row.name] else ""] * len(row)


def _results_caption(summary, dataset: str | None, bold: bool, highlight: str | None) -> str:
    if summary.empty:
        return f"no finished run on {dataset or 'any data set'} yet: run notebooks 01_teacher, 02_independent_student"
    parts = [dataset, caption(summary), "bold: best student of its model and budget" if bold else "",
             f"shaded: {highlight}" if highlight else ""]
    return " · ".join(part for part in parts if part)


def saved(trained):
    """What a training left behind: each file, relative to the artifacts' root, and its size."""
    import pandas

    files = {"weights": trained.weights_path, "description of the weights": trained.weights_path.with_suffix(".json"),
             "result record": trained.record_path}
    if trained.record.get("notebook"):
        files["executed notebook"] = artifacts.root() / trained.record["notebook"]
    rows = [(what, _relative(path), _size_text(path.stat().st_size)) for what, path in files.items() if path.is_file()]
    table = pandas.DataFrame(rows, columns=["what", "file", "size"])
    note = "loaded, it was trained before" if trained.cached else "trained now"
    return _plain(table.style, f"{trained.record.get('name')}: {note} · files in {artifacts.root()}")


def _relative(path: Path) -> str:
    return path.relative_to(artifacts.root()).as_posix() if path.is_relative_to(artifacts.root()) else str(path)


def _size_text(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def _plain(styler, caption_text: str):
    """The finish of every table: texts escaped, no row numbers, all to the left, the caption above."""
    sides = [{"selector": "caption", "props": "caption-side: top; text-align: left"},
             {"selector": "th, td", "props": "text-align: left; padding: 2px 8px"}]
    styler = styler.format(escape="html").hide(axis="index")  # names are users' own
    return styler.set_caption(escape(caption_text)).set_table_styles(sides)

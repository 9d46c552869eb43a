"""Set-up of a notebook, and a progress display that updates in place.

The display is plain HTML, text and PNG, without widgets and JavaScript. It looks the same in Jupyter, Colab,
papermill's executed copies and nbconvert's pages.
"""

import base64
import math
import platform
import re
import time
from html import escape
from pathlib import Path
from typing import Any

import torch

import kdhelpers
from kdhelpers import artifacts
from kdhelpers.device import device_name, pick_device, resolve_precision
from kdhelpers.display import plots
from kdhelpers.display.progress import TerminalProgress, TimedProgress, duration, record_text, row_text
from kdhelpers.display.teaching import check, random_logits, source  # noqa: F401  public here
from kdhelpers.messages import kernel_shell as _kernel_shell

PACKAGE = Path(kdhelpers.__file__).resolve().parent


def device() -> str:
    """The device for the networks that a notebook loads: the GPU if there is one."""
    return str(pick_device(None))


def setup(drive: bool = False) -> None:
    """Print the versions, the package's folder, the device and the artifacts' folders; warn if the notebook lies in
    another checkout than the package. Display a figure that ends a cell as a picture.

    drive: on Colab, keep the artifacts on Google Drive (see `artifacts/hosted.py`, also for Kaggle).
    """
    artifacts.set_folders(drive)
    kept = ", ".join(artifacts.FOLDERS[kind] for kind in ("weights", "plots", "results"))
    versions = f"python {platform.python_version()} · torch {torch.__version__} · kdhelpers {kdhelpers.__version__}"
    print(f"{versions} in {PACKAGE}\ndevice: {device_text()}\nartifacts: {kept} in {artifacts.root()}")
    if other := other_checkout():
        print(
            f"warning: the notebook lies in {other}, but {PACKAGE} is imported; start Jupyter in the checkout you edit"
        )
    if shell := _kernel_shell():
        formatter = shell.display_formatter.formatters["image/png"]
        # by name, since matplotlib is not imported yet
        formatter.for_type_by_name("matplotlib.figure", "Figure", lambda figure: plots.png(figure, 100))


def other_checkout() -> Path | None:
    """The copy of the package around the notebook's folder, if another one is imported."""
    folder = Path.cwd()
    around = next((each for each in (folder, *folder.parents) if (each / "kdhelpers" / "__init__.py").is_file()), None)
    return around if around and (around / "kdhelpers").resolve() != PACKAGE else None


def device_text() -> str:
    """The device that `fit` takes, its memory or threads, and the precision that "auto" means there."""
    device = pick_device()
    precision = resolve_precision("auto", device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {precision}"
    if device.type != "cpu":
        return f"{device_name(device)}, {precision}"
    note = " (no native bf16)" if precision == "fp32" else ""
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}, {precision}{note}"


def passed_parameters() -> dict[str, Any]:
    """The parameters that papermill passed; empty outside a notebook.

    papermill writes them into a cell of its own, whose first line is `# Parameters`.
    """
    shell = _kernel_shell()
    added = [cell for cell in shell.user_ns["In"] if cell.startswith("# Parameters\n")] if shell else []
    passed = [name for cell in added for name in re.findall(r"^(\w+) = ", cell, re.MULTILINE)]
    return {name: shell.user_ns[name] for name in passed}


def added_parameters() -> dict[str, Any]:
    """The parameters that papermill passed and that the notebook's parameter cell lacks; empty outside a notebook."""
    shell = _kernel_shell()
    cells = shell.user_ns["In"] if shell else []
    declared = {name for cell in cells for name in re.findall(r"^(\w+): \w+ = ", cell, re.MULTILINE)}
    return {name: value for name, value in passed_parameters().items() if name not in declared}


FIRST_PICTURES, PICTURES_SHARE = 1.0, 0.01  # seconds of drawing that a training has at once; share of its time
PICTURE_INTERVAL = 2.0  # seconds


class LiveProgress(TimedProgress):
    """Two outputs updated in place: bar, epoch, time left, loss terms, validation accuracy and images/s; the curve.

    The last state stays in the saved notebook. Outside a Jupyter kernel the constructor returns a `TerminalProgress`.
    """

    interval = 0.5  # seconds between updates of the text

    def __new__(cls):
        return super().__new__(cls) if _kernel_shell() else TerminalProgress()

    def begin(self, name: str, epochs: int, steps: int, done: int) -> None:
        self.text = self.picture = None  # their displays
        self.pictured_rows, self.pictured_at, self.picture_seconds = 0, -math.inf, 0.0
        super().begin(name, epochs, steps, done)

    def draw(self) -> None:
        plain = " · ".join(filter(None, [*self._lines(), *self._notes()]))
        self.text = _show(self.text, {"text/html": self._html(), "text/plain": plain})
        if len(self.history) > self.pictured_rows and (self.record or self._picture_is_due()):
            self._draw_curve()

    def _picture_is_due(self) -> bool:
        """Pictures take 1 % of the time, after a first second: the device is idle while one is drawn, about 0.15 s."""
        now = time.monotonic()
        allowed = FIRST_PICTURES + PICTURES_SHARE * (now - self.started)
        return now - self.pictured_at >= PICTURE_INTERVAL and self.picture_seconds <= allowed

    def _draw_curve(self) -> None:
        started = time.monotonic()
        encoded = base64.b64encode(plots.png(plots.live(self.history, self.epochs), 110)).decode()
        image = f'<img src="data:image/png;base64,{encoded}" width="640" alt="losses and accuracy"/>'
        self.picture = _show(self.picture, {"text/html": image, "text/plain": "losses and accuracy"})
        self.pictured_rows, self.pictured_at = len(self.history), time.monotonic()
        self.picture_seconds += self.pictured_at - started

    def _lines(self) -> tuple[str, str]:
        latest = row_text(self.history[-1]) if self.history else ""
        if self.record is not None:
            ended = [record_text(self.record, self.loaded), self.resumed_text()]
            return " · ".join(filter(None, [f"{self.name}: {ended[0]}", ended[1]])), latest
        elapsed, left = time.monotonic() - self.started, self.eta_seconds()
        parts = [f"{self.name}: epoch {min(self.done + 1, self.epochs)}/{self.epochs}", duration(elapsed)]
        parts += [f"{duration(left)} left"] if left is not None else []
        return " · ".join(filter(None, [*parts, self.resumed_text()])), latest

    def _notes(self) -> list[str]:
        return (self.record or {}).get("notes") or []

    def _html(self) -> str:
        headline, latest = map(escape, self._lines())
        colour = ' style="color: #B03A2E"' if (self.record or {}).get("status") == "failed" else ""
        steps = 1 if self.loaded else self.epochs * self.steps or 1
        count = steps if self.loaded else self.count
        bar = f'<progress value="{count}" max="{steps}" style="width: 640px; max-width: 100%"></progress>'
        notes = "".join(f'<div style="color: #767676">{escape(note)}</div>' for note in self._notes())
        content = f"<div{colour}>{headline}</div>{bar}<div>{latest}</div>{notes}"
        return f'<div style="font-size: 90%">{content}</div>'


def _show(shown: Any, content: dict[str, str]) -> Any:
    """Update the display `shown`, or make one if it is None; the display."""
    from IPython.display import display

    if shown is None:
        return display(content, raw=True, display_id=True)
    shown.update(content, raw=True)
    return shown

"""The progress of a training: the calls that `fit` makes, and their display on a terminal."""

import time
from collections.abc import Iterable

from kdhelpers.display.text import state_text
from kdhelpers.messages import inform, kernel_shell, stream

# The columns of a history row that are not loss terms. A method names its own terms: they are the other columns.
MEASUREMENTS = frozenset(
    "epoch lr loss train_top1_pct val_top1_pct val_nll temperature seconds images_per_second peak_memory_mib"
    " lockstep skipped_steps".split()
)

VALIDATION = "val_top1_pct"  # in lockstep the run's name precedes it: `lion val_top1_pct`


def loss_terms(row: dict) -> dict[str, float]:
    """The method's loss terms in a history row, in its order; the total loss if the method names none."""
    numbers = {name: value for name, value in row.items() if isinstance(value, (int, float))}
    terms = {name: value for name, value in numbers.items() if name.split()[-1] not in MEASUREMENTS}
    return terms or {name: row[name] for name in ("loss",) if name in row}


def duration(seconds: float) -> str:
    """Seconds as text: `4.2 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def row_text(row: dict) -> str:
    """A history row as a line: loss terms, validation accuracy and speed; missing values are left out."""
    parts = [f"{name} {value:.4g}" for name, value in loss_terms(row).items()]
    if row.get("val_top1_pct") is not None:
        parts.append(f"val top-1 {row['val_top1_pct']:.2f} %")
    if row.get("images_per_second"):
        parts.append(f"{row['images_per_second']:,.0f} images/s")
    return " · ".join(parts)


def record_text(record: dict, loaded: bool = False) -> str:
    """The end of a run as a line: test accuracy, selected epoch and training time, or the error.

    loaded: the run was not trained now; the line has the date and time of its training.
    """
    if record.get("status") == "failed":
        return state_text(record)
    metrics, selection = record.get("metrics") or {}, record.get("selection") or {}
    finished = str((record.get("environment") or {}).get("finished") or "")[:16].replace("T", " ")
    before = f"loaded: trained before{f' ({finished} UTC)' if finished else ''}"
    parts = [before if loaded else record.get("status", "ended")]
    if metrics.get("test_top1_pct") is not None:
        parts.append(f"test top-1 {metrics['test_top1_pct']:.2f} %")
    if selection.get("epoch"):  # 0 of an untrained network
        parts.append(f"epoch {selection['epoch']} chosen by {selection.get('rule')}")
    if metrics.get("train_seconds") is not None:
        parts.append(f"trained in {duration(metrics['train_seconds'])}")
    if times := record.get("resumed"):
        parts.append(f"resumed {times[-1]}")
    return " · ".join(parts)


class Progress:
    """The calls that `fit` makes. This base ignores them; a subclass displays them."""

    def begin(self, name: str, epochs: int, steps: int, done: int) -> None:
        """The run has `epochs` of `steps` optimiser steps; a resumed run has trained `done` epochs before."""

    def step(self, step: int) -> None:
        """Optimiser step 1..`steps` of the current epoch was launched. Must be cheap and must not touch a tensor."""

    def epoch(self, history: list[dict]) -> None:
        """An epoch ended. `history` holds a row per finished epoch, as in the result record."""

    def end(self, record: dict) -> None:
        """The run finished or failed, with this record. The only call for a run that was loaded from the disk."""


class TimedProgress(Progress):
    """Counts steps and seconds; calls `draw()` at begin, epoch and end, and every `interval` seconds between."""

    interval = 0.25  # seconds; a redraw must not cost the training anything

    def begin(self, name: str, epochs: int, steps: int, done: int) -> None:
        self.name, self.epochs, self.steps, self.done = name, epochs, steps, done
        self.first = self.count = done * steps  # steps of the whole run: before this session, until now
        self.history: list[dict] = []
        self.record: dict | None = None
        self.loaded = False
        self.started = time.monotonic()
        self._draw()

    def step(self, step: int) -> None:
        self.count = self.done * self.steps + step
        if time.monotonic() - self._drawn >= self.interval:
            self._draw()

    def epoch(self, history: list[dict]) -> None:
        self.history = list(history)
        self.done = len(history)
        self.count = self.done * self.steps
        self._draw()

    def end(self, record: dict) -> None:
        if not hasattr(self, "started") or self.record is not None:  # loaded, not trained
            epochs = len(record.get("history") or [])
            self.begin(record.get("name", ""), epochs, 0, epochs)
            self.loaded = True
        self.history = record.get("history") or self.history
        self.record = record
        self._draw()

    def eta_seconds(self) -> float | None:
        """Seconds left for the whole run at this session's mean pace; None before the first step."""
        trained = self.count - self.first
        if trained <= 0:
            return None
        return (time.monotonic() - self.started) / trained * (self.epochs * self.steps - self.count)

    def draw(self) -> None:
        """Display the present state; `record` is None until the end."""

    def resumed_text(self) -> str:
        """From which epoch an interrupted run went on; empty for any other."""
        return f"went on from epoch {self.first // self.steps + 1}" if self.first else ""

    def _draw(self) -> None:
        self.draw()
        self._drawn = time.monotonic()


class TerminalProgress(TimedProgress):
    """On a terminal a tqdm bar over the whole run; in a log file a line per epoch."""

    def begin(self, name: str, epochs: int, steps: int, done: int) -> None:
        self.bar = None
        if stream().isatty() and steps:
            from tqdm import tqdm

            # `interval` limits the redraws, so mininterval=0; smoothing=0 takes the remaining time from the mean pace.
            self.bar = tqdm(
                total=epochs * steps,
                file=stream(),
                initial=done * steps,
                smoothing=0,
                mininterval=0,
                dynamic_ncols=True,
                leave=False,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            )
        super().begin(name, epochs, steps, done)
        if text := self.resumed_text():
            self._print(text)

    def draw(self) -> None:
        if self.bar is None:
            return
        epoch = min(self.done + 1, self.epochs)
        self.bar.set_description_str(f"{self.name} epoch {epoch}/{self.epochs}", refresh=False)
        self.bar.set_postfix_str(row_text(self.history[-1]) if self.history else "", refresh=False)
        self.bar.update(self.count - self.bar.n)
        self.bar.refresh()

    def epoch(self, history: list[dict]) -> None:
        super().epoch(history)
        if self.bar is None:
            eta = self.eta_seconds()
            left = f" · {duration(eta)} left" if eta else ""
            self._print(f"epoch {self.done}/{self.epochs} · {row_text(history[-1])}{left}")

    def end(self, record: dict) -> None:
        super().end(record)
        if self.bar is not None:
            self.bar.close()
        for text in (record_text(record, self.loaded), *(record.get("notes") or [])):
            self._print(text)

    def _print(self, text: str) -> None:
        inform(f"{self.name}: {text}")


def progress_bar(iterable: Iterable | None = None, **options):
    """A tqdm bar, redrawn every 0.5 s on a terminal, 2 s in a notebook, and 30 s in a log, which keeps every line."""
    from tqdm import tqdm

    interval = 0.5 if stream().isatty() else 2 if kernel_shell() else 30
    return tqdm(iterable, file=stream(), mininterval=interval, maxinterval=interval, **options)

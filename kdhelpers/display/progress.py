"""What `fit` tells the outside while it trains, and how a terminal shows it."""

import sys
import time
from collections.abc import Iterable

# Everything in a history row that is not a loss term: a method names its own terms, so they are what is left over.
MEASUREMENTS = frozenset(
    {
        "epoch",
        "lr",
        "loss",
        "train_top1_pct",
        "val_top1_pct",
        "val_nll",
        "seconds",
        "images_per_second",
        "peak_memory_mib",
        "lockstep",
    }
)

VALIDATION = "val_top1_pct"  # of one run; of several in lockstep, with each one's name before it


def loss_terms(row: dict) -> dict[str, float]:
    """The method's own loss terms of one history row, in its order; the total loss where there are none."""
    numbers = {name: value for name, value in row.items() if isinstance(value, (int, float))}
    terms = {name: value for name, value in numbers.items() if name.split()[-1] not in MEASUREMENTS}
    return terms or {name: row[name] for name in ("loss",) if name in row}


def duration(seconds: float) -> str:
    """Seconds as people read them: `4.2 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def row_text(row: dict) -> str:
    """One history row as a line: its loss terms, the validation accuracy and the speed, as far as it holds them."""
    parts = [f"{name} {value:.4g}" for name, value in loss_terms(row).items()]
    if row.get("val_top1_pct") is not None:
        parts.append(f"val top-1 {row['val_top1_pct']:.2f} %")
    if row.get("images_per_second"):
        parts.append(f"{row['images_per_second']:,.0f} images/s")
    return " · ".join(parts)


def record_text(record: dict) -> str:
    """How a run ended, as a line: its test accuracy, selected epoch and time, or what it failed on."""
    if record.get("status") == "failed":
        return f"failed: {record.get('error') or 'no reason recorded'}"
    metrics, selection = record.get("metrics") or {}, record.get("selection") or {}
    parts = [record.get("status", "ended")]
    if metrics.get("test_top1_pct") is not None:
        parts.append(f"test top-1 {metrics['test_top1_pct']:.2f} %")
    if selection.get("epoch") is not None:
        parts.append(f"epoch {selection['epoch']} chosen by {selection.get('rule')}")
    if metrics.get("train_seconds") is not None:
        parts.append(f"trained in {duration(metrics['train_seconds'])}")
    return " · ".join(parts)


class Progress:
    """The calls `fit` makes. This base ignores them; subclass it to watch a training in another way."""

    def begin(self, name: str, epochs: int, steps: int, done: int) -> None:
        """`epochs` of `steps` optimiser steps each are to be trained, of which `done` epochs were before (a resume)."""

    def step(self, step: int) -> None:
        """Optimiser step 1..`steps` of the current epoch was launched; must be cheap and must not touch a tensor."""

    def epoch(self, history: list[dict]) -> None:
        """An epoch ended; `history` holds a row per epoch so far, as in the result record."""

    def end(self, record: dict) -> None:
        """The run ended, finished or failed, with this record; the only call for a run loaded from the disk."""


class TimedProgress(Progress):
    """Keeps count and time, and calls `draw()` at each begin, epoch and end, and every `interval` seconds between."""

    interval = 0.25  # seconds; people cannot read faster, and a redraw must not cost the training anything

    def begin(self, name: str, epochs: int, steps: int, done: int) -> None:
        self.name, self.epochs, self.steps, self.done = name, epochs, steps, done
        self.first = self.count = done * steps  # steps of the whole run, before this session and by now
        self.history: list[dict] = []
        self.record: dict | None = None
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
        if not hasattr(self, "started") or self.record is not None:  # loaded, not trained: nothing began
            self.begin(record.get("name", ""), len(record.get("history") or []), 0, 0)
        self.history = record.get("history") or self.history
        self.record = record
        self._draw()

    def eta_seconds(self) -> float | None:
        """Seconds left for the whole run at this session's mean pace; None before its first step."""
        trained = self.count - self.first
        if trained <= 0:
            return None
        return (time.monotonic() - self.started) / trained * (self.epochs * self.steps - self.count)

    def draw(self) -> None:
        """Show the present state; `record` is None until the end."""

    def _draw(self) -> None:
        self.draw()
        self._drawn = time.monotonic()


class TerminalProgress(TimedProgress):
    """A tqdm bar over the whole run on a terminal; in a log file one plain line per epoch."""

    def begin(self, name: str, epochs: int, steps: int, done: int) -> None:
        self.bar = None
        if sys.stderr.isatty() and steps:
            from tqdm import tqdm

            # Ours is the throttle; smoothing=0 makes tqdm's remaining time that of the mean pace, over the whole run.
            self.bar = tqdm(
                total=epochs * steps,
                initial=done * steps,
                smoothing=0,
                mininterval=0,
                dynamic_ncols=True,
                leave=False,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            )
        super().begin(name, epochs, steps, done)

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
        for text in (record_text(record), *(record.get("notes") or [])):
            self._print(text)

    def _print(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)


def progress_bar(iterable: Iterable | None = None, **options):
    """A tqdm bar that redraws twice a second on a terminal, and every 30 s where each line is kept (a log)."""
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 30
    return tqdm(iterable, mininterval=interval, maxinterval=interval, **options)

"""The progress bar of what takes a while before any training: decoding and downloading."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def progress_bar(iterable: Iterable | None = None, **options):
    """A tqdm bar that redraws twice a second on a terminal, and every 30 s where each line is kept (a log)."""
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 30
    return tqdm(iterable, mininterval=interval, maxinterval=interval, **options)

"""A rehearsal: a training ends after a few steps, and networks predict a few images.

`python -m kdhelpers suite --rehearse` sets KD_REHEARSAL to the root that it rehearses for, and KD_ROOT to a folder that
it removes. A record's seconds are then those that the whole training would take: a step's time, multiplied.
"""

import os
from collections.abc import Sized
from pathlib import Path

STEPS = {"cpu": 2, "cuda": 20}  # the last one is timed; a GPU captures its graph in the steps before
IMAGES = 64  # that a network predicts, and two of each class at least


def rehearsed_root() -> Path | None:
    """The root whose suite is rehearsed; None outside of a rehearsal."""
    return Path(os.environ["KD_REHEARSAL"]) if os.environ.get("KD_REHEARSAL") else None


def rehearsed_steps(device: str, batches: Sized) -> int | None:
    """The steps of an epoch that are trained; None, which means all, outside of a rehearsal."""
    return min(STEPS.get(device, 2), len(batches)) if rehearsed_root() else None


def rehearsed_images(images: int, classes: int) -> int:
    """How many of the images of a split are predicted."""
    return min(images, max(IMAGES, 2 * classes)) if rehearsed_root() else images

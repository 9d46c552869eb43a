"""The embedded data set: scikit-learn's handwritten digits, enlarged and tinted, so that nothing need be downloaded."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from kdhelpers.data.dataset import Split, stratified

TEST_COUNT = 360
LUMA = np.array([0.299, 0.587, 0.114])
CONTRAST = 0.35  # least difference in luma between the stroke and its ground
CANDIDATES = 64  # colour pairs drawn per image; the first with enough contrast is taken, and every image has one


def load_digits(image_size: int) -> tuple[Split, Split]:
    """(1,437 train, 360 test) stratified, uint8 [N, 3, image_size, image_size], the same on every machine.

    Each stroke and each ground has a colour of its own, drawn once and for all per image and unrelated to the class.
    """
    from sklearn.datasets import load_digits as embedded_digits

    source = embedded_digits()
    strokes = torch.from_numpy(source.images / 16).float()[:, None]  # [N, 1, 8, 8]
    strokes = F.interpolate(strokes, size=(image_size, image_size), mode="bilinear", antialias=True)
    ground, ink = (torch.from_numpy(colour).float()[:, :, None, None] for colour in _colours(len(strokes)))
    images = torch.lerp(ground, ink, strokes).mul(255).round().clamp(0, 255).to(torch.uint8)
    everything = Split(images.contiguous(), torch.from_numpy(source.target).long())
    train, test = stratified(everything.labels, TEST_COUNT, seed=0)
    return everything.select(train), everything.select(test)


def _colours(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ground and stroke colours [N, 3] in 0..1, apart by at least CONTRAST in luma."""
    pairs = np.random.RandomState(0).rand(count, CANDIDATES, 2, 3)
    difference = np.abs((pairs[:, :, 0] - pairs[:, :, 1]) @ LUMA)
    chosen = pairs[np.arange(count), (difference >= CONTRAST).argmax(1)]
    return chosen[:, 0], chosen[:, 1]

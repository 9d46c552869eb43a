"""The embedded data set: scikit-learn's handwritten digits, enlarged and tinted, so that nothing need be downloaded."""

import numpy as np
import torch
from torch.nn import functional as F

from kdhelpers.data.dataset import Split, stratified

TEST_COUNT = 360
BRIGHTEST_GROUND, DARKEST_STROKE = 0.4, 0.5  # of each channel, in 0..1


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
    """Ground and stroke colours [N, 3] in 0..1: a dark random ground and a bright random stroke for every image.

    The stroke is always the brighter one: with either way round 1,437 images are too few to learn anything in minutes.
    """
    pairs = np.random.RandomState(0).rand(count, 2, 3)
    return BRIGHTEST_GROUND * pairs[:, 0], 1 - (1 - DARKEST_STROKE) * pairs[:, 1]

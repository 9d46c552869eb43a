"""The embedded data set: scikit-learn's handwritten digits, enlarged and tinted. It needs no download."""

import numpy as np
import torch
from torch.nn import functional as F

from kdhelpers.data.dataset import Split, stratified
from kdhelpers.data.readers.arrays import Raw

TEST_COUNT = 360
BRIGHTEST_BACKGROUND, DARKEST_STROKE = 0.4, 0.5  # of each channel, in 0..1


def read_digits(image_size: int) -> Raw:
    """(1,437 train, 360 test) stratified, uint8 [N, 3, image_size, image_size], the same on every machine.

    Each image has a random stroke colour and a random background colour, both independent of the class.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    strokes = torch.from_numpy(source.images / 16).float()[:, None]  # [N, 1, 8, 8]
    strokes = F.interpolate(strokes, size=(image_size, image_size), mode="bilinear", antialias=True)
    background, stroke = (torch.from_numpy(colour).float()[:, :, None, None] for colour in _colours(len(strokes)))
    images = torch.lerp(background, stroke, strokes).mul(255).round().clamp(0, 255).to(torch.uint8)
    everything = Split(images.contiguous(), torch.from_numpy(source.target).long())
    train, test = stratified(everything.labels, TEST_COUNT, seed=0)
    splits = {"train": everything.select(train), "test": everything.select(test)}
    return Raw(splits, [str(digit) for digit in range(10)], "scikit-learn's load_digits, tinted")


def _colours(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Background and stroke colours [N, 3] in 0..1, random for each image.

    The stroke is always brighter than the background: without this, 1,437 images are too few to train on in minutes.
    """
    pairs = np.random.RandomState(0).rand(count, 2, 3)
    return BRIGHTEST_BACKGROUND * pairs[:, 0], 1 - (1 - DARKEST_STROKE) * pairs[:, 1]

"""A small data set with a trained teacher, and studies on it."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tuning_fixtures import METHODS, SETTINGS

from kdhelpers import Run, fit
from kdhelpers.display.progress import Progress
from kdhelpers.tuning import tune


@pytest.fixture(autouse=True)
def few(root):
    """64 training and 32 test images of the digits in a folder, and a teacher of one epoch."""
    digits = load_digits()
    images = np.repeat((digits.images * 15.9).astype(np.uint8)[..., None], 3, axis=3)
    folder = root / "data" / "few"
    folder.mkdir(parents=True)
    for split, part in {"train": slice(0, 64), "test": slice(64, 96)}.items():
        np.savez(folder / f"{split}.npz", images=images[part], labels=digits.target[part])
    common = {name: value for name, value in SETTINGS.items() if name not in ("model", "teacher")}
    fit(Run(model="resnet14", role="teacher", **common), progress=Progress())


@pytest.fixture
def study():
    return lambda trials=2, methods=METHODS, **options: tune(SETTINGS, methods, trials, **options)[0]

"""The CRD benchmark's networks as recorded from the published code, and the weights they were recorded with.

zoo.json has for each: sha256 of the ordered [[key, shape], ...] of its state_dict as compact JSON (100
classes), its parameters, the shapes of its maps and embedding for `zoo_images`, whether each map was taken behind a
ReLU, and for some the first five logits and the logits' norm per image in float64 under `fill_by_name`.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from kdhelpers import python_paths

ZOO = json.loads((Path(__file__).parent / "zoo.json").read_text())


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch):
    """The user gave no Python path of a network yet."""
    monkeypatch.setattr(python_paths, "_given", set())


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """(name, code) -> the name of a module with that code, which can be imported and is not yet."""
    made = []

    def make(name, code):
        (tmp_path / f"{name}.py").write_text(code)
        made.append(name)
        return name

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture(params=ZOO)
def zoo_name(request):
    return request.param


@pytest.fixture
def recorded(zoo_name):
    return ZOO[zoo_name]


@pytest.fixture
def zoo_images():
    noise = np.random.RandomState(20261120).standard_normal((4, 3, 32, 32))
    return torch.from_numpy(noise.astype(np.float32))


@pytest.fixture
def fill_by_name():
    """Weights that depend on key and shape alone, so networks of equal layout become equal networks."""

    def fill(model):
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        model.load_state_dict({key: torch.from_numpy(_values(key, shape)) for key, shape in shapes.items()})
        return model

    return fill


def _values(key, shape):
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    noise = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif len(shape) >= 2:
        noise = noise * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith(".weight"):
        noise = (1 + 0.1 * noise) * (0.4 if key.endswith(".bn2.weight") else 1)
    else:
        noise = 0.1 * noise
    return noise.astype(np.float32)

"""Fixtures of all tests: artifacts in a temporary root, small data, quick runs."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # on a busy machine threads wait for each other, and tests are small


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty artifacts' root; the data root is inside it too."""
    monkeypatch.setenv("KD_ROOT", str(tmp_path))
    monkeypatch.delenv("KD_DATA", raising=False)
    monkeypatch.delenv("KD_EXECUTED", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def data():
    """120 training images of the digits, 40 held out, 40 to test."""
    from kdhelpers import load_data
    from kdhelpers.data import Data, Split

    full = load_data("digits")

    def first(split, count):
        return Split(split.images[:count].contiguous(), split.labels[:count])

    return Data(
        "digits",
        first(full.train, 120),
        first(full.val, 40),
        first(full.test, 40),
        full.class_names,
        full.superclasses,
        full.superclass_names,
        full.mean,
        full.std,
    )


def pytest_collection_modifyitems(items):
    """Tests marked real_data skip where the data root holds no CIFAR-100."""
    from kdhelpers import artifacts

    if (artifacts.data_root() / "cifar-100-python" / "train").is_file():
        return
    for item in items:
        if "real_data" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"no CIFAR-100 in {artifacts.data_root()}"))

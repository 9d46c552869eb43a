"""Fixtures of all tests: artifacts in a temporary root, small data, quick runs."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty artifacts' root; the data root is inside it too."""
    monkeypatch.setenv("KD_ROOT", str(tmp_path))
    monkeypatch.delenv("KD_DATA", raising=False)
    monkeypatch.delenv("KD_EXECUTED", raising=False)
    return tmp_path


def pytest_collection_modifyitems(items):
    """Tests marked real_data skip where the data root holds no CIFAR-100."""
    from kdhelpers import artifacts

    if (artifacts.data_root() / "cifar-100-python" / "train").is_file():
        return
    for item in items:
        if "real_data" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"no CIFAR-100 in {artifacts.data_root()}"))

"""A trained teacher of the digits, its name, and the digits."""

import pytest

from kdhelpers import Run, fit, load_data


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A root with a teacher of the digits, trained for three epochs."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ROOT", str(root))
        patch.delenv("KD_DATA", raising=False)
        quick = {"batch_size": 32, "precision": "fp32", "lr": 0.1, "augmentation": "crop=2"}
        fit(Run(model="resnet8", role="teacher", epochs=3, **quick))
    return root


@pytest.fixture
def name(trained, monkeypatch, tmp_path):
    monkeypatch.setenv("KD_ROOT", str(trained))
    monkeypatch.delenv("KD_DATA", raising=False)
    return "teacher_resnet8_digits"


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")

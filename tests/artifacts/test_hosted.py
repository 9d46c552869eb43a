"""The folders on Colab and Kaggle. The notebooks' own cell is run in tests/end_to_end/test_colab_and_kaggle.py."""

import os
import sys

import pytest

from kdhelpers import artifacts
from kdhelpers.artifacts import hosted
from kdhelpers.data.readers.catalogue import DATASETS


@pytest.fixture
def machine(tmp_path, monkeypatch):
    for name in ("KD_ROOT", "KD_DATA", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.setenv(name, "")  # so that the test's own values are removed afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(hosted, "KAGGLE", tmp_path)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")  # Kaggle's image has it, too
    return tmp_path


def make(folder, *files):
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).touch()
    return folder


def test_kaggles_folders_are_set_once(machine, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    make(machine / "input" / "flowers", "train.npz")
    for _ in range(2):
        artifacts.set_folders(drive=True)  # is of Colab alone
    assert artifacts.root() == machine / "working"
    assert artifacts.data_root() == machine / "temp" / "data"
    assert [path.name for path in artifacts.data_root().iterdir()] == ["flowers"]


def test_variables_of_the_users_own_stay(machine, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("KD_ROOT", "/elsewhere")
    monkeypatch.setenv("KD_DATA", str(machine / "mine"))
    make(machine / "input" / "flowers", "train.npz")
    artifacts.set_folders()
    assert os.environ["KD_ROOT"] == "/elsewhere"
    assert not (machine / "mine").exists()


def test_elsewhere_nothing_is_set(machine, monkeypatch):
    before = dict(os.environ)
    artifacts.set_folders(drive=True)
    monkeypatch.setitem(sys.modules, "google.colab", object())
    artifacts.set_folders()
    assert dict(os.environ) == before
    assert not list(machine.iterdir())


def test_attached_data_sets_are_linked_under_the_names_that_the_readers_know(machine):
    attached, data = machine / "input", machine / "temp" / "data"
    folders = {
        "cifar-100-python": make(attached / "cifar100", "train", "test", "meta"),
        "cifar-10-batches-py": make(
            attached / "datasets/someone/cifar/cifar-10-batches-py", "data_batch_1", "batches.meta"
        ),
        "imagenette2-160": make(attached / "imagenette" / "imagenette2-160" / "train" / "n01440764").parents[1],
        "flowers": make(attached / "flowers", "train.npz", "test.npz"),
        "reviews": make(attached / "reviews", "train-00000-of-00001.parquet"),
    }
    make(attached / "notes", "train.csv")
    (attached / "flowers" / "cifar-100-python.tar.gz").touch()
    hosted.link_attached(attached, data)
    hosted.link_attached(attached, data)  # again: what is there stays
    assert {link.name: link.resolve() for link in data.glob("[!.]*")} == folders
    assert (data / ".cache" / "cifar-100-python.tar.gz").is_file()
    for name, layout in (("cifar10", DATASETS["cifar10"].pickles), ("cifar100", DATASETS["cifar100"].pickles)):
        assert hosted.CIFAR[next(iter(layout.meta))] == layout.folder, name


def test_folders_of_images_are_not_walked(machine, monkeypatch):
    walked = []
    real = os.walk
    monkeypatch.setattr(os, "walk", lambda top: ((walked.append(path), (path, *rest))[1] for path, *rest in real(top)))
    make(machine / "input" / "photos" / "train" / "cat", "1.png")
    hosted.link_attached(machine / "input", machine / "data")
    assert [os.path.basename(path) for path in walked] == ["input", "photos"]


def test_class_folders_without_splits_are_linked(machine):
    for name in ("cat", "dog"):
        make(machine / "input" / "pets" / "photos" / name, "1.jpg")
    make(machine / "input" / "one" / "photos", "1.jpg")
    hosted.link_attached(machine / "input", machine / "data")
    assert [link.name for link in (machine / "data").iterdir()] == ["photos"]
    assert (machine / "data" / "photos").resolve() == machine / "input" / "pets" / "photos"

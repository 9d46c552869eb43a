"""Names, order of the sources, and the real data sets."""

import hashlib

import numpy as np
import pytest
import torch

from kdhelpers import artifacts
from kdhelpers.data import DATASETS, Raw, Source, Split, load_data
from tests.data.readers.test_arrays import arrays, save
from tests.data.readers.test_image_files import write_folders


@pytest.mark.parametrize("name", ["cifar", ""])
def test_an_unknown_name_lists_the_known_ones(tmp_path, name):
    (tmp_path / ".cache").mkdir()
    with pytest.raises(
        ValueError, match="dataset = .*: unknown; .*known: digits, cifar10, cifar100, imagenette, or the name"
    ):
        load_data(name, root=tmp_path)


@pytest.mark.parametrize(
    ("name", "fault"), [("..", "other characters"), (".cache", "other characters"), ("a/b", "a path")]
)
def test_a_name_that_is_not_a_folders_is_refused_with_its_reason(tmp_path, name, fault):
    (tmp_path / ".cache").mkdir()
    with pytest.raises(ValueError, match=f"dataset = {name}: (is|has) {fault}"):
        load_data(name, root=tmp_path)


def test_an_empty_folder_says_what_belongs_in_it(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine: has no data set .it holds nothing.; put .*train,test.*npz"):
        load_data("mine", root=tmp_path)


@pytest.mark.parametrize("size", [0, -32, 7, 32.0, "32", True])
def test_a_bad_image_size_is_refused(size):
    with pytest.raises(ValueError, match="image_size = .*: is out of range"):
        load_data("digits", image_size=size)


@pytest.mark.parametrize("size", [None, 16])
def test_a_data_set_made_in_python_is_one_line_of_the_registry(tmp_path, monkeypatch, size):
    def read_stripes(image_size):
        labels = torch.arange(20) % 2
        images = labels[:, None, None, None].mul(255).to(torch.uint8).expand(-1, 3, 24, 24).contiguous()
        return Raw(
            {"train": Split(images, labels), "test": Split(images[:4], labels[:4])}, ["dark", "light"], "stripes"
        )

    monkeypatch.setitem(DATASETS, "stripes", Source("two shades", read=read_stripes))
    data = load_data("stripes", image_size=size, root=tmp_path)
    assert [len(split) for split in (data.train, data.val, data.test)] == [18, 2, 4]
    assert (data.class_names, data.source, data.image_size) == (["dark", "light"], "stripes", size or 24)
    assert data.mean == pytest.approx((0.5,) * 3)


def test_a_registered_data_set_without_files_or_download_says_where_files_belong(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "pets", Source("cats and dogs"))
    with pytest.raises(ConnectionError, match="pets is not under .*; put there by hand .*train,test.* under pets/"):
        load_data("pets", root=tmp_path)
    write_folders(tmp_path / "pets")
    assert load_data("pets", root=tmp_path).class_names == ["cat", "dog"]


def test_class_folders_come_before_npz(tmp_path):
    folder = write_folders(tmp_path / "mine")
    images, labels = arrays()
    for name in ("train", "test"):
        save(folder, name, images=images, labels=labels)
    assert load_data("mine", root=tmp_path).class_names == ["cat", "dog"]


def test_the_data_root_is_the_artifacts_one(root):
    write_folders(root / "data" / "mine")
    assert len(load_data("mine").test) == 8


def test_a_part_of_a_known_data_set_is_accepted_and_noted(tmp_path):
    images, labels = arrays()
    for name in ("train", "test"):
        save(tmp_path / "cifar10", name, images=images, labels=labels)
    data = load_data("cifar10", root=tmp_path)
    assert data.card()["notes"][0] == "train has 12 images; the official split has 50,000"
    assert data.mean == (0.4914, 0.4822, 0.4465)


def test_the_card_counts_and_can_be_written_as_json(tmp_path):
    card = load_data("digits").card()
    artifacts.save_json(tmp_path / "card.json", card)
    assert (card["train"], card["val"], card["test"], card["classes"], card["image_size"]) == (1293, 144, 360, 10, 16)


def test_imagenettes_classes_have_names_in_words(tmp_path):
    write_folders(tmp_path / "imagenette", classes=sorted(DATASETS["imagenette"].words), count=1)
    data = load_data("imagenette", val_fraction=0, root=tmp_path)
    assert data.class_names[0] == "tench"
    assert data.class_names[-1] == "parachute"
    assert data.image_size == 96


@pytest.mark.real_data
def test_real_cifar100_is_torchvisions():
    from torchvision.datasets import CIFAR100

    data = load_data("cifar100")
    assert [len(split) for split in (data.train, data.val, data.test)] == [45000, 5000, 10000]
    official = CIFAR100(artifacts.data_root(), train=False)
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), official.data)
    assert data.test.labels.tolist() == official.targets
    assert data.class_names == official.classes
    assert torch.bincount(data.val.labels).unique().tolist() == [50]
    card = data.card()
    assert card["superclasses"] == 20
    assert card["test_images_also_in_train_or_val"] == 10
    assert data.superclass_names[data.superclasses[data.class_names.index("maple_tree")]] == "trees"
    assert torch.bincount(torch.tensor(data.superclasses)).tolist() == [5] * 20


@pytest.mark.real_data
def test_the_fingerprints_are_those_of_the_verified_pickles(tmp_path):
    """So that the same images from npz or parquet are known for the official ones."""
    data = load_data("cifar100", val_fraction=0)
    for name, split in (("train", data.train), ("test", data.test)):
        images = split.images.permute(0, 2, 3, 1).flip(0).numpy()
        save(tmp_path / "cifar100", name, images=images, labels=split.labels.flip(0).numpy())
    assert load_data("cifar100", root=tmp_path).notes == ()
    labels = split.labels.numpy().copy()
    labels[77] = (labels[77] + 1) % 100
    save(tmp_path / "cifar100", "test", images=images, labels=labels)
    assert load_data("cifar100", root=tmp_path).notes == ("test differs from the official images or labels",)


@pytest.mark.real_data
def test_real_imagenette(tmp_path):
    folder = artifacts.data_root() / "imagenette"
    if not folder.is_dir():
        pytest.skip("no imagenette")
    data = load_data("imagenette", val_fraction=0.1)
    assert (len(data.train) + len(data.val), len(data.test)) == (9469, 3925)
    assert data.train.images.shape[1:] == (3, 96, 96)
    assert data.notes == ()
    known = hashlib.sha256(data.test.labels.numpy()).hexdigest()
    assert known == hashlib.sha256(load_data("imagenette", image_size=32).test.labels.numpy()).hexdigest()

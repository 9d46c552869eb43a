"""Pickles and .npz: what is accepted, and the one-line error for everything else."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from kdhelpers.data import load_data
from kdhelpers.data.findings import Findings
from kdhelpers.data.readers.arrays import PickleLayout, checked_split, read_npz, read_pickles, resize


def arrays(count=12, classes=3, size=32, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, size, size, 3), dtype=np.uint8), np.arange(count) % classes


def write_pickles(root):
    """A tiny CIFAR-100 in torchvision's layout, and its description."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    md5 = {}
    contents = {"meta": {"fine_label_names": ["a", "b", "c"], "coarse_label_names": ["x", "y"]}}
    for name, seed in (("train", 0), ("test", 1)):
        images, labels = arrays(seed=seed)
        data = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        contents[name] = {"data": data, "fine_labels": labels.tolist(), "coarse_labels": (labels // 2).tolist()}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    return PickleLayout(
        folder.name, {"train": md5["train"]}, {"test": md5["test"]}, {"meta": md5["meta"]}, "fine_labels",
        "fine_label_names", "coarse_labels", "coarse_label_names",
    )  # fmt: skip


def test_pickles_give_images_labels_names_and_superclasses(tmp_path):
    raw = read_pickles(tmp_path, write_pickles(tmp_path))
    images, labels = arrays(seed=0)
    assert np.array_equal(raw.splits["train"].images.permute(0, 2, 3, 1).numpy(), images)
    assert raw.splits["train"].images.is_contiguous()
    assert raw.splits["train"].labels.tolist() == labels.tolist()
    assert raw.class_names == ["a", "b", "c"]
    assert raw.superclasses == [0, 0, 1]
    assert raw.superclass_names == ["x", "y"]


def test_no_folder_of_pickles_is_no_error(tmp_path):
    layout = write_pickles(tmp_path / "elsewhere")
    assert read_pickles(tmp_path, layout) is None


def test_a_truncated_pickle_is_refused_before_it_is_parsed(tmp_path):
    layout = write_pickles(tmp_path)
    file = tmp_path / "cifar-100-python" / "train"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cifar-100-python/train: md5 is .* \(truncated or altered\); delete it"):
        read_pickles(tmp_path, layout)


def test_a_missing_pickle_is_named(tmp_path):
    layout = write_pickles(tmp_path)
    (tmp_path / "cifar-100-python" / "test").unlink()
    with pytest.raises(FileNotFoundError, match="cifar-100-python/test is missing"):
        read_pickles(tmp_path, layout)


def test_load_data_checks_the_official_md5s(tmp_path):
    write_pickles(tmp_path)
    with pytest.raises(ValueError, match="md5 is .*, not 7973b15100ade9c7d40fb424638fde48"):
        load_data("cifar100", root=tmp_path)


def save(folder, name, **content):
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{name}.npz", **content)


def test_npz_with_and_without_names(tmp_path):
    for name in ("train", "test"):
        images, labels = arrays()
        save(tmp_path, name, images=images, labels=labels.astype(np.uint8))
    raw = read_npz(tmp_path, Findings())
    assert raw.class_names == ["0", "1", "2"]
    assert np.array_equal(raw.splits["test"].images.permute(0, 2, 3, 1).numpy(), images)
    save(tmp_path, "train", images=images, labels=labels, class_names=np.array(["cat", "dog", "cow"]))
    assert read_npz(tmp_path, Findings()).class_names == ["cat", "dog", "cow"]


def test_a_second_split_is_the_test_and_a_third_is_the_validation(tmp_path):
    for name, count in (("train", 20), ("val", 5)):
        images, labels = arrays(count)
        save(tmp_path / "two", name, images=images, labels=labels)
        save(tmp_path / "three", name, images=images, labels=labels)
    images, labels = arrays(7)
    save(tmp_path / "three", "test", images=images, labels=labels)
    two, three = (load_data(name, root=tmp_path) for name in ("two", "three"))
    assert [len(split) for split in (two.train, two.val, two.test)] == [18, 2, 5]
    assert [len(split) for split in (three.train, three.val, three.test)] == [20, 5, 7]


IMAGES, LABELS = arrays()
WITH_NAN = IMAGES.astype(np.float32)
WITH_NAN[5, 3, 3, 1] = np.nan


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (WITH_NAN, LABELS, "image 5 holds NaN; repair"),
        (IMAGES / 255, LABELS, "images are float64; save them as uint8"),
        (IMAGES.astype(np.int32), LABELS, "images are int32; save them as uint8"),
        (IMAGES[..., 0], LABELS, r"images are \[12, 32, 32\]; save \[N, H, W, 3\]"),
        (IMAGES.transpose(0, 3, 1, 2), LABELS, "save .N, H, W, 3."),
        (IMAGES, LABELS[:-1], "12 images, labels of shape .11."),
        (IMAGES, LABELS + 0.5, "labels are float64; save them as integers"),
        (IMAGES, LABELS - 1, "label -1 of image 0 is out of range; use 0..2"),
        (IMAGES, np.where(np.arange(12) == 4, 3, LABELS), "label 3 of image 4 is out of range"),
        (IMAGES[:0], LABELS[:0], "has no images; add some"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(tmp_path, images, labels, message):
    with pytest.raises(ValueError, match=message) as caught:
        checked_split(images, labels, 3, "train.npz")
    assert "\n" not in str(caught.value)
    save(tmp_path / "set", "train", images=images, labels=labels, class_names=np.array(["a", "b", "c"]))
    save(tmp_path / "set", "test", images=IMAGES, labels=LABELS)
    with pytest.raises(ValueError, match=message):
        load_data("set", root=tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "text", "pickled", "keys", "no test", "float labels"])
def test_bad_npz_files_are_refused_by_name(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "set"
    save(folder, "train", images=IMAGES, labels=LABELS)
    if damage != "no test":
        save(folder, "test", images=IMAGES, labels=LABELS)
    file = folder / "train.npz"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:3000])
    elif damage == "text":
        file.write_text("hello")
    elif damage == "pickled":
        save(folder, "train", images=np.array([object()], dtype=object), labels=LABELS)
    elif damage == "keys":
        save(folder, "train", data=IMAGES, labels=LABELS)
    elif damage == "float labels":
        save(folder, "train", images=IMAGES, labels=np.full(12, np.nan))
    with pytest.raises(ValueError, match="set.*(;)") as caught:
        load_data("set", root=tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "was-here").exists()


def test_arrays_of_other_sizes_are_cut_square_and_resized(tmp_path):
    images = np.zeros((2, 40, 60, 3), np.uint8)
    images[:, :, 10:50] = 200  # the central square
    for name in ("train", "test"):
        save(tmp_path / "wide", name, images=np.repeat(images, 6, 0), labels=LABELS)
    with pytest.raises(ValueError, match="not all squares of one size .train 60x40, test 60x40.; give an image_size"):
        load_data("wide", root=tmp_path)
    data = load_data("wide", image_size=20, root=tmp_path)
    assert data.train.images.shape[1:] == (3, 20, 20)
    assert data.train.images.unique().tolist() == [200]


def test_resizing_is_antialiased():
    board = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).mul(255).to(torch.uint8).expand(1, 3, 64, 64)
    assert (resize(board, 16).int() - 127).abs().max() <= 8
    assert resize(board, 64) is board

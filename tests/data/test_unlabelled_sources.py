"""Images without labels: where they come from, and that nothing but images comes."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from kdhelpers.data import Split, check_unlabelled, load_data, read_unlabelled
from kdhelpers.data.unlabelled import take_unlabelled


@pytest.fixture
def images():
    return np.random.RandomState(0).randint(0, 256, (6, 8, 8, 3)).astype(np.uint8)


def pickled(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("keys", [("data", "ids"), (b"data", b"ids")])
def test_pickles_of_both_shapes_give_the_same_images_and_ids_in_order(tmp_path, images, protocol, flat, keys):
    data = images.transpose(0, 3, 1, 2).reshape(6, -1) if flat else images  # CIFAR's files hold channel after channel
    ids = np.array([7, 3, 10, 1, 0, 99])
    found = read_unlabelled(pickled(tmp_path / "t.pkl", dict(zip(keys, (data, ids), strict=True)), protocol))
    assert torch.equal(found.images, torch.from_numpy(images).permute(0, 3, 1, 2))
    assert found.images.is_contiguous()
    assert found.ids == ["7", "3", "10", "1", "0", "99"]


def test_ids_may_be_texts_or_bytes_and_images_are_resized(tmp_path, images):
    for ids in (["a", "b", "c", "d", "e", "f"], [b"a", b"b", b"c", b"d", b"e", b"f"]):
        found = read_unlabelled(pickled(tmp_path / "t.pkl", {"data": images, "ids": ids}), image_size=16)
        assert found.ids == list("abcdef")
        assert found.images.shape == (6, 3, 16, 16)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, images):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = pickled(tmp_path / "t.pkl", {"data": images, "ids": Evil()})
    with pytest.raises(ValueError, match="only numpy arrays and plain containers"):
        read_unlabelled(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ids": [1, 2]}, "6 images but 2 ids; give one id per image"),
        ({"ids": [1, 2, 3, 4, 5, 2]}, "id 2 stands there 2 times"),
        ({"data": np.zeros((6, 8, 8, 3))}, r"data is float64 \[6, 8, 8, 3\]; must be uint8"),
        ({"data": np.zeros((6, 100), np.uint8)}, r"data is uint8 \[6, 100\]"),
        (
            {"data": np.zeros((0, 8, 8, 3), np.uint8), "ids": ()},
            "0 images but 0 ids; give one id per image, and at least one",
        ),
        ({"ids": None}, "holds data; a dictionary with data and ids is needed"),
    ],
)
def test_other_content_is_refused_with_the_remedy(tmp_path, images, change, says):
    content = {"data": images, "ids": range(6)} | change
    content = {key: list(value) if key == "ids" else value for key, value in content.items() if value is not None}
    with pytest.raises(ValueError, match=says):
        read_unlabelled(pickled(tmp_path / "t.pkl", content, protocol=5))
    with pytest.raises(ValueError, match="holds list; a dictionary"):
        read_unlabelled(pickled(tmp_path / "l.pkl", [1]))


def test_a_folder_without_classes_is_read_in_natural_order(tmp_path, images, monkeypatch):
    monkeypatch.setenv("KD_DATA", str(tmp_path))
    folder = tmp_path / "more"
    folder.mkdir()
    for name, image in zip(("2", "10", "1", "b7", "b12", "a"), images, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    (folder / "readme.txt").write_text("not an image")
    found = read_unlabelled("more")  # below the data root
    assert found.ids == ["1", "2", "10", "a", "b7", "b12"]
    assert torch.equal(found.images[1], torch.from_numpy(images[0]).permute(2, 0, 1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in it; put them there without class folders"):
        read_unlabelled("empty")


@pytest.mark.parametrize("source", ["", "nowhere.pkl", "train", "train:", "train:0", "train:-0", "val", "train:1e3"])
def test_an_unknown_source_is_refused(source):
    with pytest.raises(ValueError, match="no such file or folder .*known: test, train:16000"):
        check_unlabelled(source)
    check_unlabelled("test")
    check_unlabelled("train:16000")


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def test_a_part_of_the_training_images_loses_its_labels_and_is_learned_from_no_longer(digits):
    data = load_data("digits", unlabelled="train:1000")
    assert (len(data.train), len(data.unlabelled)) == (len(digits.train) - 1000, 1000)
    whole = {image.tobytes() for image in digits.train.images.numpy()}
    labelled = {image.tobytes() for image in data.train.images.numpy()}
    unlabelled = {image.tobytes() for image in data.unlabelled.images.numpy()}
    assert labelled | unlabelled == whole
    assert not labelled & unlabelled
    assert not hasattr(data.unlabelled, "labels")
    kept = torch.bincount(data.train.labels)
    torch.testing.assert_close(
        kept / kept.sum(), torch.bincount(digits.train.labels) / len(digits.train), rtol=0, atol=0.01
    )
    assert (data.mean, data.std) == (digits.mean, digits.std)  # so that the same image looks the same in every study
    assert torch.equal(load_data("digits", unlabelled="train:1000").unlabelled.images, data.unlabelled.images)
    other = load_data("digits", split_seed=1, unlabelled="train:1000")
    assert not torch.equal(other.unlabelled.images, data.unlabelled.images)
    assert data.test_images_unlabelled == 0


def test_test_images_without_labels_are_counted_whatever_file_they_come_in(digits, tmp_path):
    data = load_data("digits", unlabelled="test")
    assert torch.equal(data.unlabelled.images, digits.test.images)
    assert torch.equal(data.train.images, digits.train.images)
    assert data.test_images_unlabelled == len(digits.test) == data.card()["unlabelled"]
    assert len({data.content_hash, digits.content_hash, load_data("digits", unlabelled="train:360").content_hash}) == 3
    some = digits.test.images[:20].permute(0, 2, 3, 1).numpy()
    path = pickled(tmp_path / "t.pkl", {"data": some, "ids": list(range(20))})
    assert load_data("digits", unlabelled=str(path)).test_images_unlabelled == 20


def test_labels_do_not_choose_what_is_seen_of_a_file(digits, tmp_path):
    """Two files that differ in labels beside the images are one: nothing else of them is looked at."""
    array, ids = digits.test.images.permute(0, 2, 3, 1).numpy(), {"ids": list(range(360))}
    first, second = (
        load_data("digits", unlabelled=str(pickled(tmp_path / f"{wrong}.pkl", {"data": array, "labels": wrong, **ids})))
        for wrong in (0, 1)
    )
    assert first.content_hash == second.content_hash


def test_some_training_images_must_keep_their_labels():
    split = Split(torch.zeros(20, 3, 8, 8, dtype=torch.uint8), torch.arange(20) % 4)
    assert len(take_unlabelled("train:16", split, split, 0, 8)[0]) == 4
    assert len(take_unlabelled("train:-8", split, split, 0, 8)[0]) == 8
    for count in (-20, -25, 17, 20, 500, -3):
        with pytest.raises(ValueError, match=f"train:{count}: of 20 training images 1 to 16 can be set aside"):
            take_unlabelled(f"train:{count}", split, split, 0, 8)

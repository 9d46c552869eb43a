"""Images without labels: where they come from, and that nothing but images comes."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from kdhelpers.data import Split, check_unlabelled, labelled_count, load_data, read_unlabelled
from kdhelpers.data.readers.unlabelled import take_unlabelled


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


@pytest.mark.parametrize("ids", [[2**63 + 1, -3], ["ä,b", 'b"c'], [12345678901234567890, "1.50"], [b"a", 1]])
def test_ids_come_as_they_were_given(tmp_path, images, ids):
    found = read_unlabelled(pickled(tmp_path / "t.pkl", {"data": images[:2], "ids": ids}))
    assert found.ids == [each.decode() if isinstance(each, bytes) else str(each) for each in ids]
    unsigned = [np.uint64(5), np.int64(6)]
    assert read_unlabelled(pickled(tmp_path / "t.pkl", {"data": images[:2], "ids": unsigned})).ids == ["5", "6"]


def test_ids_of_another_kind_are_refused(tmp_path, images):
    with pytest.raises(ValueError, match="ids is str; must be a list, a tuple or an array"):
        read_unlabelled(pickled(tmp_path / "t.pkl", {"data": images, "ids": "abcdef"}))


def test_oblong_images_are_cut_to_their_shorter_side(tmp_path, images):
    content = {"data": images[:, :6], "ids": list(range(6))}
    assert read_unlabelled(pickled(tmp_path / "t.pkl", content)).images.shape == (6, 3, 6, 6)
    content = {"data": images[:, :, :5], "ids": list(range(6))}
    assert read_unlabelled(pickled(tmp_path / "t.pkl", content)).images.shape == (6, 3, 5, 5)


def test_a_file_here_comes_before_one_under_the_data_root(tmp_path, images, monkeypatch):
    monkeypatch.setenv("KD_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    for folder, ids in ((tmp_path, ["here"]), (tmp_path / "root", ["there"])):
        folder.mkdir(exist_ok=True)
        pickled(folder / "t.pkl", {"data": images[:1], "ids": ids})
    assert read_unlabelled("t.pkl").ids == ["here"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ids": [1, 2]}, "6 images but 2 ids; give one id per image"),
        ({"ids": [1, 2, 3, 4, 5, 2]}, "id 2 occurs 2 times; give every image a unique id"),
        ({"data": np.zeros((6, 8, 8, 3))}, r"data is float64 \[6, 8, 8, 3\]; must be an array uint8"),
        ({"data": np.zeros((6, 100), np.uint8)}, r"data is uint8 \[6, 100\]"),
        (
            {"data": np.zeros((0, 8, 8, 3), np.uint8), "ids": ()},
            "0 images but 0 ids; give one id per image, and at least one",
        ),
        ({"ids": None}, r"contains \['data'\]; save a dictionary with data and ids"),
        ({"data": [[1, 2], [3]]}, "data is list; must be an array uint8"),
        ({"data": np.zeros((6, 0), np.uint8)}, r"data is uint8 \[6, 0\]"),
        ({"data": np.zeros((6, 0, 8, 3), np.uint8)}, r"data is uint8 \[6, 0, 8, 3\]"),
        ({"ids": [1, 2, 3, 4, 5, None]}, "id None is NoneType; ids are whole numbers or printable texts"),
        ({"ids": [1, 2, 3, 4, 5, 1.5]}, "id 1.5 is float"),
        ({"ids": [1, 2, 3, 4, 5, True]}, "id True is bool"),
        ({"ids": ["a", "b", "c", "d", "e", "f\r"]}, r"id 'f\\r' is str"),
        ({"ids": ["a", "b", "c", "d", "e", "f" * 1001]}, "is str; .* of 1 to 1000 characters"),
        ({"ids": ["a", "b", "c", "d", "e", b"\xff"]}, r"id b'\\xff' is bytes"),
        ({"ids": ["a", "b", "c", "d", "e", ""]}, "id '' is str"),
        (
            {"ids": [1, 2, 3, 4, 5, 10**5000]},
            "id .very long. is int; ids are whole numbers or printable texts of 1 to 1000",
        ),
    ],
)
def test_other_content_is_refused_with_the_remedy(tmp_path, images, change, says):
    content = {"data": images, "ids": range(6)} | change
    content = {key: list(value) if key == "ids" else value for key, value in content.items() if value is not None}
    with pytest.raises(ValueError, match=says):
        read_unlabelled(pickled(tmp_path / "t.pkl", content, protocol=5))
    with pytest.raises(ValueError, match="contains list; save a dictionary"):
        read_unlabelled(pickled(tmp_path / "l.pkl", [1]))
    with pytest.raises(ValueError, match="/dev/null: is neither a file nor a folder"):
        read_unlabelled("/dev/null")


def test_a_folder_without_classes_is_read_in_natural_order(tmp_path, images, monkeypatch):
    monkeypatch.setenv("KD_DATA", str(tmp_path))
    folder = tmp_path / "more"
    folder.mkdir()
    for name, image in zip(("2", "10", "1", "b7", "b12", "a"), images, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    found = read_unlabelled("more")  # below the data root
    assert found.ids == ["1", "2", "10", "a", "b7", "b12"]
    assert torch.equal(found.images[1], torch.from_numpy(images[0]).permute(2, 0, 1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no images; add some without class folders"):
        read_unlabelled("empty")


def test_what_is_passed_over_in_a_folder_is_said(tmp_path, images):
    for name in ("1.PNG", "01.png", "._1.png", ".hidden.png"):
        Image.fromarray(images[0]).save(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "readme.txt").write_text("not an image")
    with pytest.warns(UserWarning, match=r"3 entries are not image files .*ignored: folder.png, gone.png, readme.txt$"):
        assert read_unlabelled(tmp_path).ids == ["01", "1"]


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
    first, other = (take_unlabelled("train:1000", digits.train, digits.test, seed)[1] for seed in (0, 1))
    assert torch.equal(first.images, data.unlabelled.images)
    assert not torch.equal(first.images, other.images)
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
    assert len(take_unlabelled("train:16", split, split, 0)[0]) == 4
    assert len(take_unlabelled("train:-8", split, split, 0)[0]) == 8
    long_tailed = Split(torch.zeros(20, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 1, 2, 2] + [3] * 14))
    for count in range(1, 17):  # classes of two give less than their part
        labelled, others = take_unlabelled(f"train:{count}", long_tailed, split, 0)
        assert (len(labelled), len(others)) == (20 - count, count)
        assert labelled_count(f"train:{count}", 20) == labelled_count(f"train:{count - 20}", 20) == 20 - count
        assert len(labelled.labels.unique()) == 4
    for count in (-20, -25, 17, 20, 500, -3):
        with pytest.raises(ValueError, match=f"train:{count}: of 20 training images 1 to 16 can lose their labels"):
            take_unlabelled(f"train:{count}", split, split, 0)

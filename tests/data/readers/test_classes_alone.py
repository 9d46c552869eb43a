"""Class folders without splits: the test split that is made; copies of files."""

import pytest
import torch
from PIL import Image

from kdhelpers import load_data
from kdhelpers.data.findings import WARNING
from tests.data.folder_cases import SIZE, faults, refused, write
from tests.data.readers.test_image_files import write_folders


def test_a_folder_of_classes_gets_a_test_split_that_is_recorded_and_said_once(tmp_path, capsys):
    write(tmp_path / "pets")
    data = load_data("pets", root=tmp_path)
    assert [len(split) for split in (data.train, data.val, data.test)] == [14, 2, 4]
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert data.card()["test_split"] == "a fifth of the images of each class, by seed 0"
    said = capsys.readouterr().err
    assert "has no test split; a fifth of the images of each class, by seed 0, is the test split (4)" in said
    again = load_data("pets", split_seed=7, root=tmp_path)
    assert torch.equal(again.test.images, data.test.images)  # the same for all runs that are compared
    assert "test split" not in capsys.readouterr().err
    assert load_data("pets", val_fraction=0, root=tmp_path).content_hash != data.content_hash


def test_the_record_of_a_run_holds_how_the_test_split_was_made(root):
    from kdhelpers.training.record import data_facts

    write(root / "data" / "pets")
    assert data_facts(load_data("pets"))["test_split"].startswith("a fifth")
    assert "test_split" not in data_facts(load_data("digits"))


def test_copies_of_a_file_do_not_come_into_both_splits(tmp_path):
    folder = write(tmp_path / "pets", count=0)
    for number in range(20):
        for name in ("cat", "dog"):
            Image.new("RGB", (SIZE, SIZE), (number // 4, 9 * (name == "cat"), 0)).save(folder / name / f"{number}.png")
    data = load_data("pets", val_fraction=0, root=tmp_path)
    assert data.card()["test_images_also_in_train_or_val"] == 0
    assert len(data.train) + len(data.test) == 40


@pytest.mark.parametrize("inner", ["pets", "PetImages", "images/all"])
def test_a_folder_in_a_folder_is_found(tmp_path, inner):
    write(tmp_path / "pets" / inner)
    (tmp_path / "pets" / "__MACOSX").mkdir()
    assert load_data("pets", root=tmp_path).class_names == ["cat", "dog"]


def test_too_few_images_for_a_test_split(tmp_path):
    write(tmp_path / "pets", count=1)
    refused(
        tmp_path, r"pets: has no test split and too few images to take one from \(2\); add images, or test/<class>/"
    )


def test_a_class_of_one_image_is_said(tmp_path):
    folder = write(tmp_path / "pets")
    for number in range(1, 10):
        (folder / "cat" / f"{number}.png").unlink()
    assert load_data("pets", root=tmp_path).test.labels.unique().tolist() == [1]
    assert (WARNING, "class 'cat' has too few images for the test split") in faults(tmp_path)


def test_one_class_is_refused(tmp_path):
    write_folders(tmp_path / "pets", classes=("cat",))
    refused(tmp_path, "has one class, 'cat'; a classifier needs two or more")


def test_files_in_two_splits_or_two_classes_are_said(tmp_path):
    folder = write_folders(tmp_path / "pets")
    for number in range(2):
        content = (folder / "train" / "cat" / f"{number}.png").read_bytes()
        (folder / "val" / "cat" / f"{number}.png").write_bytes(content)
    (folder / "train" / "dog" / "3.png").write_bytes(content)
    data = load_data("pets", root=tmp_path)
    assert "val/cat/0.png, " in data.notes[0]
    assert "the same file is in train: an image of val is trained on" in " ".join(data.notes)
    assert "train/dog/3.png: the same file is in two classes" in " ".join(data.notes)
    assert load_data("pets", root=tmp_path).notes == data.notes  # from the cache
    assert (WARNING, "2 of 8 images of test have the pixels of a training image") in faults(tmp_path)

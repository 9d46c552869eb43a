"""Layouts and names that people's folders have: read, or refused with file and remedy."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from kdhelpers import Run, load_data
from kdhelpers.data import check_data, read_unlabelled
from kdhelpers.data.findings import NOTE, WARNING
from tests.data.folder_cases import SIZE, faults, refused, write
from tests.data.readers.test_image_files import picture, write_folders


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    names = [str(number) for number in range(12)]
    write_folders(tmp_path / "pets", classes=names, count=1)
    assert load_data("pets", val_fraction=0, root=tmp_path).class_names == names
    write(tmp_path / "other", classes=["class_10", "class_9"])
    assert load_data("other", root=tmp_path).class_names == ["class_9", "class_10"]


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    folder = write_folders(tmp_path / "pets", classes=("café", "dog"))
    (folder / "val" / "café").rename(folder / "val" / unicodedata.normalize("NFD", "café"))
    data = load_data("pets", root=tmp_path)
    assert data.class_names == [unicodedata.normalize("NFC", "café"), "dog"]
    (folder / "val" / "café").mkdir()
    refused(tmp_path, r"pets/val: the folders 'cafe\\u0301' and 'caf\\xe9' are one class; merge them")


def test_spaces_around_a_name(tmp_path):
    folder = write_folders(tmp_path / "pets")
    (folder / "train" / "cat").rename(folder / "train" / "cat ")
    assert load_data("pets", root=tmp_path).class_names == ["cat", "dog"]
    assert (NOTE, "the name begins or ends with a space") in faults(tmp_path)


def test_names_that_differ_in_case(tmp_path):
    folder = write_folders(tmp_path / "pets", classes=("cat", "Cat", "dog"))
    assert (WARNING, "the classes Cat, cat differ in case only") in faults(tmp_path)
    for file in (folder / "val" / "Cat").iterdir():
        file.unlink()
    (folder / "val" / "Cat").rmdir()
    (folder / "val" / "dog").rename(folder / "val" / "Dog")
    message = refused(tmp_path, "class 'Cat' is in train but not in val; every split needs every class")
    assert "more: `python -m kdhelpers data pets --check` lists all" in message
    remedies = [finding.remedy for finding in check_data("pets", root=tmp_path)]
    assert any("'dog' of train differs in case only: rename one" in remedy for remedy in remedies)


def test_names_that_are_not_utf8(tmp_path):
    folder = write_folders(tmp_path / "pets")
    try:
        os.rename(os.fsencode(folder / "train" / "cat"), os.fsencode(folder / "train") + b"/caf\xe9")
        os.rename(os.fsencode(folder / "val" / "cat"), os.fsencode(folder / "val") + b"/caf\xe9")
        os.rename(os.fsencode(folder / "train" / "dog" / "0.png"), os.fsencode(folder / "train") + b"/dog/\xff.png")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    data = load_data("pets", root=tmp_path)
    assert data.class_names == ["caf\\xe9", "dog"]
    assert load_data("pets", root=tmp_path).content_hash == data.content_hash
    with open(os.fsencode(folder / "train") + b"/dog/\xff.png", "wb") as file:
        file.write(b"x")
    refused(tmp_path, r"dog/\\xff.png: is not a readable image").encode()
    assert read_unlabelled(folder / "val" / "dog").ids[0] == "0"


@pytest.mark.parametrize("names", [("Train", "Test"), ("TRAIN", "VAL"), ("training", "validation")])
def test_splits_by_other_names(tmp_path, names):
    write_folders(tmp_path / "pets", names)
    data = load_data("pets", root=tmp_path)
    assert (len(data.train) + len(data.val), len(data.test)) == (8, 8)


def test_two_folders_of_one_split_are_refused(tmp_path):
    write_folders(tmp_path / "pets", ("train", "Train", "test"))
    refused(tmp_path, "pets: the folders Train and train are the same split; merge them, or rename one")


def test_a_split_that_is_not_read_is_said(tmp_path):
    write_folders(tmp_path / "pets", ("train", "test", "validation"))
    assert len(load_data("pets", root=tmp_path).val) == 1  # a tenth of train, as before
    assert (WARNING, "the folder is not read") in faults(tmp_path)


def test_a_data_set_without_train_is_refused(tmp_path):
    write_folders(tmp_path / "pets", ("test",))
    refused(tmp_path, "pets: has test but not train; add train/<class>/")


def tiny_imagenet(root):
    folder = root / "tiny"
    for name in ("n01", "n02"):
        (folder / "train" / name / "images").mkdir(parents=True)
        (folder / "train" / name / f"{name}_boxes.txt").write_text("boxes")
        for number in range(3):
            picture(SIZE, SIZE).save(folder / "train" / name / "images" / f"{name}_{number}.JPEG")
    for split in ("val", "test"):
        (folder / split / "images").mkdir(parents=True)
        for number in range(4):
            picture(SIZE, SIZE).save(folder / split / "images" / f"{split}_{number}.JPEG")
    lines = [f"val_{number}.JPEG\tn0{2 - number % 2}\t0\t0\t1\t1\n" for number in range(4)]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def test_tiny_imagenet_is_read_as_it_is(tmp_path):
    folder = tiny_imagenet(tmp_path)
    data = load_data("tiny", val_fraction=0, root=tmp_path)
    assert data.class_names == ["n01", "n02"]
    assert data.train.labels.tolist() == [0] * 3 + [1] * 3
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    pixels = [np.asarray(Image.open(folder / "val" / "images" / f"val_{number}.JPEG")) for number in (1, 3, 0, 2)]
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert "has images without class folders and is not read" in " ".join(data.notes)
    (folder / "val" / "images" / "val_1.JPEG").unlink()
    picture(SIZE, SIZE).save(folder / "val" / "images" / "more.JPEG")
    refused(tmp_path, "val_annotations.txt: names val_1.JPEG, which is missing", "tiny")
    assert (WARNING, "images without a line in val_annotations.txt are not read (1)") in faults(tmp_path, "tiny")


def test_labels_in_a_table_say_which_layout_to_make(tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    (folder / "labels.csv").write_text("id,label\n0,cat\n")
    picture().save(folder / "0.png")
    refused(tmp_path, "pets: has images without class folders next to labels.csv; put the images into <class>/")
    (folder / "train").mkdir()
    (folder / "test").mkdir()
    (folder / "0.png").rename(folder / "train" / "0.png")
    refused(tmp_path, "train, .*test: has images without class folders next to labels.csv")


def test_files_of_the_system_are_skipped(tmp_path):
    folder = write_folders(tmp_path / "pets")
    (folder / "train" / "cat" / "._001.png").write_bytes(b"\0\5\x16\7")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / "train" / "cat" / name).write_bytes(b"x")
    for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
        (folder / "train" / name).mkdir()
        (folder / "train" / name / "._cat.png").write_bytes(b"x")
    data = load_data("pets", val_fraction=0, root=tmp_path)
    assert (data.class_names, len(data.train)) == (["cat", "dog"], 8)
    assert {what for _, what in faults(tmp_path)} == {"belongs to the system and is not read"}


def test_files_of_other_kinds_are_counted(tmp_path):
    folder = write_folders(tmp_path / "pets")
    for number in range(2):
        picture().save(folder / "train" / "cat" / f"{number}.gif")
    (folder / "train" / "cat" / "a.heic").write_bytes(b"x")
    (folder / "train" / "cat" / "notes.txt").write_text("x")
    assert (WARNING, "files of other kinds are not read: 2 .gif, 1 .heic") in faults(tmp_path)
    for file in (folder / "train" / "cat").glob("*.png"):
        file.unlink()
    refused(tmp_path, "train/cat: has no images of a kind that is read, only 2 .gif, 1 .heic; convert the files")


def test_links_that_lead_back_are_not_followed(tmp_path):
    folder = write_folders(tmp_path / "pets")
    (folder / "train" / "loop").symlink_to(folder)
    (folder / "train" / "cat" / "self").symlink_to(folder / "train" / "cat")
    data = load_data("pets", val_fraction=0, root=tmp_path)
    assert (data.class_names, len(data.train)) == (["cat", "dog"], 8)
    assert (WARNING, "is a link to a folder around it and is not read") in faults(tmp_path)


def test_images_in_deeper_folders(tmp_path):
    folder = write_folders(tmp_path / "pets")
    (folder / "train" / "cat" / "more").mkdir()
    picture().save(folder / "train" / "cat" / "more" / "9.png")
    assert len(load_data("pets", val_fraction=0, root=tmp_path).train) == 8
    assert (WARNING, "images in its subfolders are not read (1)") in faults(tmp_path)
    for file in (folder / "train" / "cat").glob("*.png"):
        file.rename(folder / "train" / "cat" / "more" / file.name)
    assert len(load_data("pets", val_fraction=0, root=tmp_path).train) == 9


def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path):
    folder = write_folders(tmp_path / "pets")
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / "\x1b[2J\n.png")
    (folder / "train" / "cat" / "\x1b[2J\n.png").write_text("text")
    assert r"cat/\x1b[2J\x0a.png: is not" in refused(tmp_path, "is not a readable image")


def test_a_changed_table_of_labels_is_read_again(tmp_path):
    table = tiny_imagenet(tmp_path) / "val" / "val_annotations.txt"
    for labels in ([0, 0, 0, 1], [0, 1, 1, 1]):  # in both the images have the same order
        rows = [f"val_{number}.JPEG\tn0{label + 1}\t0\t0\t1\t1\n" for number, label in enumerate(labels)]
        table.write_text("".join(rows))
        assert load_data("tiny", root=tmp_path).test.labels.tolist() == labels


def test_links_to_what_is_missing_are_refused(tmp_path):
    folder = write(tmp_path / "pets")
    (folder / "cat" / "gone.png").symlink_to(tmp_path / "gone.png")
    refused(tmp_path, "gone.png: is a link to what is missing; restore it, or remove the link")
    (folder / "cat" / "gone.png").unlink()
    (folder / "emu").symlink_to(tmp_path / "emu")
    refused(tmp_path, "emu: is a link to what is missing")


def test_images_next_to_the_class_folders_are_counted(tmp_path):
    folder = write(tmp_path / "pets")
    picture(SIZE, SIZE).save(folder / "left.png")
    picture(SIZE, SIZE).save(folder / "right.png")
    assert (WARNING, "images next to the class folders are not read (2)") in faults(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    folder = write(tmp_path / "pets")
    real = type(folder).iterdir

    def closed(path):
        if path.name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(type(folder), "iterdir", closed)
    refused(tmp_path, "dog: cannot be read .Permission denied.; change its permissions")


def test_a_name_that_is_not_of_a_folder_says_what_it_is(root):
    data = root / "data"
    write(data / "my pets")
    (data / "pets.zip").write_bytes(b"PK")
    (data / "gone").symlink_to(root / "gone")
    texts = {
        "my pets": "has other characters than letters",
        "pets.zip": "pets.zip is a file; unpack it",
        "gone": "gone is a link to what is missing",
        "C:\\photos\\pets": "is a path; copy or link the folder into",
        str(data / "my pets"): "is a path; copy or link the folder into",
    }
    for name, text in texts.items():
        with pytest.raises(ValueError, match="dataset = ") as caught:
            Run(dataset=name)
        assert text in str(caught.value)
        if name != "my pets":
            with pytest.raises(ValueError, match="dataset = ") as caught:
                load_data(name)
            assert text in str(caught.value)

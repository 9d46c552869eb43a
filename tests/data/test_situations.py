"""What people's folders do to a data set: the right result, or an error that names file and remedy."""

import io
import os
import unicodedata

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, PngImagePlugin

from kdhelpers import load_data
from kdhelpers.cli.commands import main
from kdhelpers.data import check_data, read_unlabelled
from kdhelpers.data.findings import FAULTS, NOTE, SERIOUS, WARNING, Findings, grouped
from kdhelpers.data.readers import decoded_cache, decoding, image, memory
from tests.data.readers.test_image_files import encoded, picture, write_folders

SIZE = 8


def write(folder, classes=("cat", "dog"), count=10, kind="png"):
    """Class folders without splits."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture(SIZE, SIZE).save(folder / name / f"{number}.{kind}")
    return folder


def faults(root, name="pets", **options):
    return [(severity, what) for severity, _, what, _ in check_data(name, root=root, **options)]


def refused(root, match, name="pets", **options):
    with pytest.raises(ValueError, match=match) as caught:
        load_data(name, root=root, **options)
    assert "\n" not in str(caught.value)
    assert any(str(caught.value).startswith(each.where) for each in check_data(name, root=root, **options))
    return str(caught.value)


# a folder of classes without a split


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


# names


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


# layout


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


# pixels


def first(root, **options):
    return load_data("pets", val_fraction=0, root=root, **options).train.images[0].numpy()


@pytest.mark.parametrize(("most", "shift"), [(255, 0), (4095, 4), (65535, 8)])
def test_sixteen_bits_are_scaled_by_the_range_of_the_data_set(tmp_path, most, shift):
    folder = write_folders(tmp_path / "pets")
    levels = np.linspace(0, most, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(levels).save(folder / "train" / "cat" / "0.png")
    Image.fromarray(levels // 2).save(folder / "train" / "cat" / "1.png")
    data = load_data("pets", val_fraction=0, root=tmp_path)
    assert np.array_equal(data.train.images[0, 0].numpy(), levels >> shift)
    assert np.array_equal(data.train.images[1, 2].numpy(), levels // 2 >> shift)
    assert data.pixel_ranges == {"I": (0, most)}
    assert load_data("pets", val_fraction=0, root=tmp_path).pixel_ranges == data.pixel_ranges  # from the cache
    assert f"0 to {most} becomes 0 to 255".replace("65535", "65535") in " ".join(data.notes)


def test_images_to_predict_are_scaled_as_the_training_images(tmp_path):
    dim = np.full((SIZE, SIZE), 300, np.uint16)
    Image.fromarray(dim).save(tmp_path / "dim.png")
    assert read_unlabelled(tmp_path / "dim.png").images.max() == 300 >> 1
    assert read_unlabelled(tmp_path / "dim.png", ranges={"I": (0, 4095)}).images.max() == 300 >> 4


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 200), (-3, 9)])
def test_images_of_floats(tmp_path, low, high):
    folder = write_folders(tmp_path / "pets")
    values = np.linspace(low, high, 32 * 32, dtype=np.float32).reshape(32, 32)
    Image.fromarray(values).save(folder / "train" / "cat" / "0.tif")
    (folder / "train" / "cat" / "0.png").unlink()
    expected = values if high == 200 else (values - low) / (high - low) * 255
    assert np.abs(first(tmp_path)[0] - expected).max() <= 1
    values[3, 3] = np.nan
    Image.fromarray(values).save(folder / "train" / "cat" / "0.tif")
    refused(tmp_path, "0.tif: has pixels that are not finite numbers")


def test_dark_images_of_sixteen_bits_per_colour_are_said(tmp_path):
    folder = write_folders(tmp_path / "pets")
    import zlib

    rows = b"".join(b"\0" + np.full((SIZE, 3), 4000, ">u2").tobytes() for _ in range(SIZE))
    header = SIZE.to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    content = io.BytesIO()
    content.write(b"\x89PNG\r\n\x1a\n")
    for kind, part in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        PngImagePlugin.putchunk(content, kind, part)
    (folder / "train" / "cat" / "0.png").write_bytes(content.getvalue())
    what = "has 16 bits per colour, of which the upper 8 reach only 15 of 255"
    assert (WARNING, what) in faults(tmp_path, image_size=SIZE)


def test_transparent_images_are_laid_on_white(tmp_path):
    folder = write_folders(tmp_path / "pets") / "train" / "cat"
    drawing = np.zeros((32, 32, 4), np.uint8)
    drawing[8:16, 8:16, 3] = 255
    expected = np.full((32, 32), 255)
    expected[8:16, 8:16] = 0
    Image.fromarray(drawing).save(folder / "0.png")
    Image.fromarray(drawing).convert("LA").save(folder / "1.png")
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.paste(0, (8, 8, 16, 16))
    palette.save(folder / "2.png", transparency=1)
    data = load_data("pets", val_fraction=0, root=tmp_path)
    for number in range(3):
        assert np.array_equal(data.train.images[number, 0].numpy(), expected)
    [note] = data.notes
    assert note.endswith("0.png, " + f"{folder / '1.png'}, {folder / '2.png'}: is transparent; it is laid on white")


def test_an_exif_orientation_turns_the_image(tmp_path):
    folder = write_folders(tmp_path / "pets") / "train" / "cat"
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:8] = 200
    exif = Image.Exif()
    exif[image.ORIENTATION] = 6  # to be turned by 90 degrees
    Image.fromarray(np.rot90(upright)).save(folder / "0.png", exif=exif)
    assert np.array_equal(first(tmp_path), upright.transpose(2, 0, 1))


def test_several_frames_and_pages_are_counted(tmp_path):
    folder = write_folders(tmp_path / "pets") / "train" / "cat"
    for name in ("a.webp", "b.tif", "c.png"):
        picture().save(folder / name, save_all=True, append_images=[picture()])
    load_data("pets", root=tmp_path)
    [(found, wheres)] = grouped(check_data("pets", root=tmp_path))
    assert (found.what, len(wheres)) == ("has several frames or pages, and only the first is read", 3)


def test_palette_grey_cmyk_and_single_pixels_are_read(tmp_path):
    folder = write_folders(tmp_path / "pets") / "train" / "cat"
    for number, mode in enumerate(("P", "1", "LA", "L")):
        picture(mode="L").convert(mode).save(folder / f"{number}.png")
    picture().convert("CMYK").save(folder / "8.jpg")
    Image.new("RGB", (1, 1), "red").save(folder / "9.png")
    data = load_data("pets", image_size=16, val_fraction=0, root=tmp_path)
    assert data.train.images[5].flatten(1).unique(dim=1).flatten().tolist() == [255, 0, 0]
    assert (WARNING, "is smaller than 16 px and is enlarged") in faults(tmp_path, image_size=16)


def html(file):
    file.write_text("<!DOCTYPE html><html><title>Quota exceeded</title>")


def empty(file):
    file.write_bytes(b"")


def pointer(file):
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def heic(file):
    file.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(30))


def cut_jpeg(file):
    buffer = io.BytesIO()
    picture(64, 64).save(buffer, "JPEG")
    file.write_bytes(buffer.getvalue()[:-400])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (html, "is a web page, not an image; download it again"),
        (empty, "is an empty file, not an image; copy or download it again"),
        (pointer, "is a pointer of Git LFS, not an image; run `git lfs pull`"),
        (heic, "is an image of kind HEIC, not an image; convert it"),
        (cut_jpeg, r"is not a readable image \(truncated\); get it again"),
    ],
)
def test_what_is_not_an_image_is_named(tmp_path, damage, says):
    folder = write_folders(tmp_path / "pets")
    damage(folder / "train" / "cat" / "0.jpg")
    (folder / "train" / "cat" / "1.png").write_text("text")
    message = refused(tmp_path, f"cat/0.jpg: {says}", image_size=32)
    assert "(1 more: `python -m kdhelpers data pets --check` lists all)" in message


def test_a_bomb_is_refused_without_advice_to_delete_it(tmp_path, monkeypatch):
    write_folders(tmp_path / "pets")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "delete" not in refused(tmp_path, "has more than 200 pixels; save it smaller")


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


def test_too_little_memory_is_said_before_the_decoding(tmp_path, monkeypatch):
    write_folders(tmp_path / "pets")
    monkeypatch.setattr(decoding, "free_memory", lambda: 6 * 16 * 500 * 500)
    monkeypatch.setattr(decoding, "read_image", None)
    says = r"pets: 16 images at 1000 px need 0.1 GiB of memory, 0.0 GiB are free; take image_size = 496 or less"
    with pytest.raises(ValueError, match=says):
        load_data("pets", image_size=1000, root=tmp_path)


def test_free_memory_is_of_the_container_if_that_has_less(tmp_path, monkeypatch):
    for name, text in (("max", "1000"), ("current", "900"), ("stat", "anon 1\ninactive_file 300\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert memory.free_memory() == 400
    (tmp_path / "memory.max").write_text("max")
    assert memory.free_memory() > 1e6


# reading


def test_an_unchanged_folder_is_not_opened_again(tmp_path, monkeypatch):
    folder = write_folders(tmp_path / "pets")
    opened = []
    read_bytes = type(folder).read_bytes
    monkeypatch.setattr(type(folder), "read_bytes", lambda path: opened.append(path) or read_bytes(path))
    first = load_data("pets", root=tmp_path)
    images = [path for path in opened if path.suffix == ".png"]
    assert sorted(images) == sorted(folder.rglob("*.png"))  # each once

    def fail(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(decoded_cache, "_hashes", fail)
    assert load_data("pets", root=tmp_path).content_hash == first.content_hash
    picture().save(folder / "train" / "cat" / "0.png")
    with pytest.raises(AssertionError, match="read again"):
        load_data("pets", root=tmp_path)


def test_a_slow_drive_gives_the_hint_to_copy(tmp_path, monkeypatch, capsys):
    write_folders(tmp_path / "pets")
    monkeypatch.setattr(decoding, "SLOW", -1)
    monkeypatch.setattr(decoding, "SLOW_FILES", 5)
    load_data("pets", root=tmp_path)
    assert "ms a file; copy the data set to a local disk and set KD_DATA to it" in capsys.readouterr().err


# parquet and npz


def write_parquet(folder, image=None, label=None, **columns):
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        cells = image or [encoded(picture(SIZE, SIZE)) for _ in range(4)]
        table = pyarrow.table({"image": cells, "label": label or ["b", "a10", "a9", "b"], **columns})
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")


def test_labels_of_text_are_classes(tmp_path):
    write_parquet(tmp_path / "pets")
    data = load_data("pets", val_fraction=0, root=tmp_path)
    assert data.class_names == ["a9", "a10", "b"]
    assert data.train.labels.tolist() == data.test.labels.tolist() == [2, 1, 0, 2]


def test_a_column_of_plain_bytes_is_read(tmp_path):
    write_parquet(tmp_path / "pets", [encoded(picture(SIZE, SIZE))["bytes"] for _ in range(4)])
    assert len(load_data("pets", root=tmp_path).test) == 4


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            {"label": [0, None, 1, 1]},
            "train.parquet row 1, .*test.parquet row 1: column label has no value; fill it in",
        ),
        ({"label": [0.5, 1.0, 0.0, 1.0]}, "column label holds double; save whole numbers from 0, or texts"),
        ({"image": [{"bytes": None, "path": "a.png"}] * 4}, "column image has a path without bytes; save the bytes"),
        ({"image": ["a.png"] * 4}, "row 0, .* column image has str in place of an image; save the bytes"),
    ],
)
def test_other_columns_are_refused_in_one_line(tmp_path, columns, says):
    write_parquet(tmp_path / "pets", **columns)
    with pytest.raises(ValueError, match=says) as caught:
        load_data("pets", root=tmp_path)
    assert "\n" not in str(caught.value)


def test_shards_of_different_columns_are_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    write_parquet(tmp_path / "pets")
    table = pyarrow.table({"image": [encoded(picture(SIZE, SIZE))], "class": ["a9"]})
    pyarrow.parquet.write_table(table, tmp_path / "pets" / "train2.parquet")
    refused(tmp_path, "train2.parquet: lacks the column label of train.parquet; save all files of a split")


def test_a_class_of_the_test_file_alone_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    write_parquet(tmp_path / "pets")
    table = pyarrow.table({"image": [encoded(picture(SIZE, SIZE))] * 2, "label": ["a9", "new"]})
    pyarrow.parquet.write_table(table, tmp_path / "pets" / "test.parquet")
    refused(tmp_path, "test.parquet row 1: column label is 'new', which train lacks")


def test_images_of_several_sizes_in_an_array_are_refused_with_the_remedy(tmp_path):
    images = np.empty(2, object)
    images[:] = [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 5, 3), np.uint8)]
    (tmp_path / "pets").mkdir()
    np.savez(tmp_path / "pets" / "train.npz", images=images, labels=np.arange(2))
    np.savez(tmp_path / "pets" / "test.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.array(["a", None]))
    refused(
        tmp_path, "train.npz: images are an object array, as of images of several sizes; resize them to one size, or"
    )
    assert (SERIOUS, "labels are Python objects") in faults(tmp_path)


def test_labels_of_text_in_an_array_are_classes(tmp_path):
    (tmp_path / "pets").mkdir()
    images = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    np.savez(tmp_path / "pets" / "train.npz", images=images, labels=np.array(["c10", "c9", "c9"]))
    np.savez(tmp_path / "pets" / "test.npz", images=images, labels=np.array(["c9", "c10", "c9"]))
    data = load_data("pets", val_fraction=0, root=tmp_path)
    assert (data.class_names, data.train.labels.tolist(), data.test.labels.tolist()) == (
        ["c9", "c10"],
        [1, 0, 0],
        [0, 1, 0],
    )
    np.savez(tmp_path / "pets" / "test.npz", images=images, labels=np.array(["c9", "new", "c9"]))
    refused(tmp_path, "test.npz: label -1 of image 1 is out of range")


# the check


def test_the_check_lists_all_findings_in_one_run(root):
    folder = write_folders(root / "data" / "pets", count=6)
    for number in range(5):
        empty(folder / "train" / "cat" / f"{number}.png")
    html(folder / "val" / "dog" / "0.png")
    (folder / "train" / "emu").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "train" / "dog" / "0.png")
    picture(40, 50).save(folder / "train" / "dog" / "1.png")
    result = CliRunner().invoke(main, ["data", "pets", "--check"])
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    for part in (
        "severity count where: what; remedy",
        "serious 5 ",
        "and 2 more: is an empty file, not an image; copy or download it again",
        "0.png: is a web page, not an image",
        "emu: has no images; add some",
        "class 'emu' is in train but not in val",
        "the images are not all squares of one size (32x32, 40x50); give an image_size",
        "images of train have one colour only (1)",
    ):
        assert part in text
    assert result.output.index("serious") < result.output.index("warning")


def test_the_check_of_sound_data_finds_nothing(root):
    write_folders(root / "data" / "pets")
    result = CliRunner().invoke(main, ["data", "pets", "--check"])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "pets: nothing is odd about its files")
    assert CliRunner().invoke(main, ["data", "digits", "--check"]).exit_code == 0


def test_every_fault_is_used_and_has_a_remedy():
    from pathlib import Path

    import kdhelpers.data

    text = "".join(path.read_text() for path in Path(kdhelpers.data.__file__).parent.rglob("*.py"))
    for name, fault in FAULTS.items():
        assert fault.severity in (SERIOUS, WARNING, NOTE)
        assert text.count(f'"{name}"') > 1, name
        assert "delete" not in fault.remedy


def test_a_long_list_is_cheap():
    found = Findings("pets")
    for number in range(20_000):
        found.add("enlarged", f"{number}.png", size=32)
        found.add("enlarged", f"{number}.png", size=32)
    [(_, wheres)] = grouped(found)
    assert len(wheres) == 20_000

"""Class folders and parquet: decoding, the cache, and what is wrong with a folder."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from kdhelpers.data import load_data
from kdhelpers.data.readers import decoded_cache, image_files

RANDOM = np.random.default_rng(0)


def picture(width=32, height=32, mode="RGB"):
    return Image.fromarray(RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def write_folders(root, splits=("train", "val"), classes=("cat", "dog"), count=4, **picture_options):
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                picture(**picture_options).save(root / split / name / f"{number}.png")
    return root


def test_folders_are_decoded_exactly_and_sorted(tmp_path):
    write_folders(tmp_path / "pets")
    data = load_data("pets", val_fraction=0, root=tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    for place, file in enumerate(sorted((tmp_path / "pets" / "train").glob("*/*.png"))):
        expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
        assert np.array_equal(data.train.images[place].numpy(), expected)
    assert len(data.test) == 8
    np.testing.assert_allclose(data.mean, data.train.images.double().mean((0, 2, 3)) / 255, atol=1e-6)


def test_three_folders_keep_their_own_validation(tmp_path):
    write_folders(tmp_path / "pets", ("train", "val", "test"))
    data = load_data("pets", root=tmp_path)
    assert [len(split) for split in (data.train, data.val, data.test)] == [8, 8, 8]


def test_grey_transparent_and_jpeg_images_become_rgb(tmp_path):
    folder = write_folders(tmp_path / "pets")
    grey, clear = picture(mode="L"), picture(mode="RGBA")
    grey.save(folder / "train" / "cat" / "0.png")
    clear.save(folder / "train" / "cat" / "1.png")
    picture().save(folder / "train" / "cat" / "9.JPEG")
    images = load_data("pets", val_fraction=0, root=tmp_path).train.images
    assert len(images) == 9
    assert all(np.array_equal(channel, np.asarray(grey)) for channel in images[0].numpy())
    assert np.array_equal(images[1].numpy(), np.asarray(clear.convert("RGB")).transpose(2, 0, 1))


def test_sixteen_bits_of_grey_keep_their_upper_eight(tmp_path):
    folder = write_folders(tmp_path / "pets")
    levels = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(levels).save(folder / "train" / "cat" / "0.png")
    images = load_data("pets", val_fraction=0, root=tmp_path).train.images
    assert all(np.array_equal(channel, levels >> 8) for channel in images[0].numpy())


def test_a_folder_that_is_named_as_an_image_is_passed_over(tmp_path):
    folder = write_folders(tmp_path / "pets") / "train" / "cat"
    (folder / "folder.png").mkdir()
    assert len(load_data("pets", val_fraction=0, root=tmp_path).train) == 8


def test_images_of_mixed_sizes_are_cut_square_and_resized_once_a_size_is_given(tmp_path):
    folder = write_folders(tmp_path / "pets")
    wide = np.zeros((40, 60, 3), np.uint8)
    wide[:, 10:50] = 90
    Image.fromarray(wide).save(folder / "train" / "cat" / "0.png")
    with pytest.raises(ValueError, match=r"not all squares of one size .60x40.; give an image_size"):
        load_data("pets", root=tmp_path)
    images = load_data("pets", image_size=16, val_fraction=0, root=tmp_path).train.images
    assert images.shape == (8, 3, 16, 16)
    assert images[0].unique().tolist() == [90]


def test_decoded_images_are_kept_until_the_content_of_a_file_changes(tmp_path, monkeypatch):
    folder = write_folders(tmp_path / "pets")
    changed = folder / "train" / "cat" / "0.png"
    first = load_data("pets", root=tmp_path)
    assert len(list((tmp_path / ".cache").glob("pets-*.npz"))) == 1

    def no_decoding(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(image_files, "decode", no_decoding)
        os.utime(changed, (0, 0))  # as after a copy
        assert load_data("pets", root=tmp_path).content_hash == first.content_hash
        with pytest.raises(AssertionError, match="decoded again"):
            load_data("pets", image_size=16, root=tmp_path)
        patch.setattr(decoded_cache, "DECODING", decoded_cache.DECODING + 1)
        with pytest.raises(AssertionError, match="decoded again"):
            load_data("pets", root=tmp_path)
    other, size = picture(mode="L"), changed.stat().st_size
    other.save(changed)
    changed.write_bytes(changed.read_bytes().ljust(size, b"\0")[:size])  # the same length and time
    os.utime(changed, (0, 0))
    assert load_data("pets", root=tmp_path).content_hash != first.content_hash


def test_an_image_that_moves_to_another_class_is_no_longer_served_under_its_old_one(tmp_path):
    folder = write_folders(tmp_path / "pets")
    load_data("pets", root=tmp_path)
    (folder / "train" / "cat" / "3.png").rename(folder / "train" / "dog" / "-.png")  # all in the same order as before
    assert load_data("pets", val_fraction=0, root=tmp_path).train.labels.tolist() == [0] * 3 + [1] * 5


def array_alone(cache):
    with open(cache, "wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    "damage",
    [
        lambda cache: cache.write_bytes(cache.read_bytes()[:2000]),
        lambda cache: cache.write_bytes(b""),
        array_alone,
        lambda cache: np.savez(cache, other=np.zeros(3)),
    ],
    ids=["truncated", "empty", "an array alone", "other arrays"],
)
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    write_folders(tmp_path / "pets")
    first = load_data("pets", root=tmp_path)
    (cache,) = (tmp_path / ".cache").glob("*.npz")
    damage(cache)
    assert load_data("pets", root=tmp_path).content_hash == first.content_hash


def test_a_cache_that_cannot_be_written_is_only_a_warning(tmp_path):
    write_folders(tmp_path / "pets")
    (tmp_path / ".cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not be cached"):
        assert len(load_data("pets", root=tmp_path).test) == 8


def truncate(folder):
    file = folder / "train" / "dog" / "2.png"
    file.write_bytes(file.read_bytes()[:200])


def write_text(folder):
    (folder / "val" / "dog" / "2.png").write_text("not a picture")


def lose_class(folder):
    for file in (folder / "val" / "dog").iterdir():
        file.unlink()
    (folder / "val" / "dog").rmdir()


def add_class(folder):
    (folder / "val" / "emu").mkdir()
    picture().save(folder / "val" / "emu" / "0.png")


def empty_class(folder):
    for file in (folder / "train" / "cat").iterdir():
        file.unlink()


def lose_split(folder):
    (folder / "val").rename(folder / "validation-later")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"train/dog/2\.png: is not a readable image .*; get it again"),
        (write_text, r"val/dog/2\.png: is not a readable image"),
        (lose_class, "class 'dog' is in train but not in val"),
        (add_class, "class 'emu' is in val but not in train"),
        (empty_class, "train/cat: has no images; add some"),
        (lose_split, "has train but neither test nor val"),
    ],
)
@pytest.mark.parametrize("image_size", [None, 16])
def test_bad_folders_are_refused_in_one_line(tmp_path, damage, message, image_size):
    damage(write_folders(tmp_path / "pets"))
    with pytest.raises(ValueError, match=message) as caught:
        load_data("pets", image_size=image_size, root=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_train_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "pets" / "train").mkdir(parents=True)
    picture().save(tmp_path / "pets" / "train" / "0.png")
    with pytest.raises(ValueError, match="train: has no class folders; put the images into train/<class>/"):
        load_data("pets", root=tmp_path)


def encoded(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_parquet(path, labels, columns=("img", "fine_label"), names=True, coarse=True):
    import pyarrow
    import pyarrow.parquet

    pictures = [picture() for _ in labels]
    content = {columns[0]: [encoded(image) for image in pictures], columns[1]: labels}
    features = {columns[1]: {"names": ["apple", "bee", "cup"], "_type": "ClassLabel"}}
    if coarse:
        content["coarse_label"] = [label // 2 for label in labels]
        features["coarse_label"] = {"names": ["living", "thing"], "_type": "ClassLabel"}
    table = pyarrow.table(content)
    if names:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)
    return pictures


def test_parquet_of_hugging_face_gives_images_names_and_superclasses(tmp_path):
    folder = tmp_path / "things"
    pictures = write_parquet(folder / "train-00000-of-00002.parquet", [0, 1, 2])
    pictures += write_parquet(folder / "train-00001-of-00002.parquet", [2, 1])
    write_parquet(folder / "test-00000-of-00001.parquet", [1, 1, 0])
    data = load_data("things", val_fraction=0, root=tmp_path)
    assert data.train.labels.tolist() == [0, 1, 2, 2, 1]
    assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), np.stack([np.asarray(p) for p in pictures]))
    assert data.class_names == ["apple", "bee", "cup"]
    assert data.superclasses == [0, 0, 1]
    assert data.superclass_names == ["living", "thing"]
    assert len(data.test) == 3


def test_parquet_with_other_column_names_and_a_converted_layout(tmp_path):
    for split in ("train", "validation"):
        write_parquet(tmp_path / "things" / split / "0000.parquet", [0, 2, 1], ("image", "label"), False, False)
    data = load_data("things", val_fraction=0, root=tmp_path)
    assert data.class_names == ["0", "1", "2"]
    assert data.superclasses is None
    assert len(data.test) == 3


@pytest.mark.parametrize("damage", ["truncated", "columns", "label", "image"])
def test_bad_parquet_is_refused_by_name(tmp_path, damage):
    file = tmp_path / "things" / "train.parquet"
    labels = [0, 1, 7] if damage == "label" else [0, 1, 2]
    columns = ("pixels", "label") if damage == "columns" else ("img", "label")
    write_parquet(file, labels, columns, coarse=False)
    write_parquet(tmp_path / "things" / "test.parquet", [0, 1, 2])
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-30])
    if damage == "image":
        content = file.read_bytes()
        file.write_bytes(content.replace(b"IHDR", b"IHXR", 1))
    with pytest.raises(ValueError, match=r"train\.parquet") as caught:
        load_data("things", root=tmp_path)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)

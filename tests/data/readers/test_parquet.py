"""Columns of parquet and arrays of npz files."""

import numpy as np
import pytest

from kdhelpers import load_data
from kdhelpers.data.findings import SERIOUS
from tests.data.folder_cases import SIZE, faults, refused
from tests.data.readers.test_image_files import encoded, picture


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

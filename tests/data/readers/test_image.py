"""Modes, depths and orientations of image files."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from kdhelpers import load_data
from kdhelpers.data import check_data, read_unlabelled
from kdhelpers.data.findings import WARNING, grouped
from kdhelpers.data.readers import image
from tests.data.folder_cases import SIZE, faults, refused
from tests.data.readers.test_image_files import picture, write_folders


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

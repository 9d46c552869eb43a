"""Files that are not images; memory; slow drives; what is opened."""

import io

import pytest
from PIL import Image

from kdhelpers import load_data
from kdhelpers.data.readers import decoded_cache, decoding, memory
from tests.data.folder_cases import refused
from tests.data.readers.test_image_files import picture, write_folders


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

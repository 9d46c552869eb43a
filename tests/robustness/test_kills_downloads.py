"""Data sets whose download is killed, and those that several processes download at once."""

import threading

import pytest

from kdhelpers.data import load as sources
from kdhelpers.data import load_data
from tests.data.readers.test_download import make_tar, offered, server, unpack  # noqa: F401  fixtures


def test_parquet_of_which_a_kill_left_a_part_in_the_folder_is_downloaded_again(offered, tmp_path, monkeypatch):  # noqa: F811
    real, moved = sources.os.replace, []

    def killed_after_one(source, target):
        if str(target).endswith(".parquet") and moved:
            raise KeyboardInterrupt
        moved.append(target)
        real(source, target)

    monkeypatch.setattr(sources.os, "replace", killed_after_one)
    with pytest.raises(KeyboardInterrupt):
        load_data("cifar100", root=tmp_path / "root")
    monkeypatch.setattr(sources.os, "replace", real)
    assert len(load_data("cifar100", root=tmp_path / "root").test) == 12


def test_what_a_kill_left_of_an_unpacking_is_removed(tmp_path):
    left = tmp_path / ".unpack-a.tgz" / "set" / "train"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    unpack(make_tar(tmp_path / "a.tgz", {"set/test": b"2"}), tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tgz", "set", "test"]


def test_a_full_disk_is_named_while_an_archive_is_unpacked(tmp_path, monkeypatch):
    from kdhelpers.data.readers import download

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match=f"cannot write {tmp_path}: No space left on device; free some space") as error:
        unpack(make_tar(tmp_path / "a.tgz", {"set/train": b"1"}), tmp_path)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


def test_processes_that_load_a_missing_data_set_at_once_all_get_it(offered, tmp_path):  # noqa: F811
    offered.files = {path: content for path, content in offered.files.items() if "parquet" not in path}
    found, errors = [], []

    def load():
        try:
            found.append(load_data("cifar100", root=tmp_path / "root").content_hash)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(found) == 4
    assert len(set(found)) == 1

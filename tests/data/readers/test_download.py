"""Downloads from a server on this machine: resumed, verified, unpacked safely; and the words where there is none."""

import hashlib
import io
import tarfile
import threading
from dataclasses import replace

import pytest
from serving import serving

from kdhelpers.data import DATASETS, load_data
from kdhelpers.data import load as sources
from kdhelpers.data.readers import download as download_module
from kdhelpers.data.readers.catalogue import Archive
from kdhelpers.data.readers.download import download, unpack
from tests.data.readers.test_image_files import write_folders, write_parquet

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def server():
    with serving() as server:
        server.files = {"/file": CONTENT}
        yield server


def md5(content):
    return hashlib.md5(content).hexdigest()


def test_a_file_comes_whole_and_verified(server, tmp_path, capsys):
    path = download(f"{server.url}/file", tmp_path / "new" / "file", md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert not path.with_name("file.part").exists()
    assert "512k/512k" in capsys.readouterr().err  # size (and rate) are shown


def test_a_partial_file_is_gone_on_with_and_not_begun_anew(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:100_000])
    assert download(f"{server.url}/file", tmp_path / "file", md5(CONTENT)).read_bytes() == CONTENT
    assert server.asked == ["bytes=100000-"]


def test_a_transfer_that_keeps_breaking_off_goes_on_each_time(server, tmp_path):
    server.limit = 50_000
    assert download(f"{server.url}/file", tmp_path / "file", md5(CONTENT)).read_bytes() == CONTENT
    assert server.asked == [None, *(f"bytes={start}-" for start in range(50_000, len(CONTENT), 50_000))]


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    assert download(f"{server.url}/file", tmp_path / "file", md5(CONTENT)).read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_servers_is_begun_anew(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * (len(CONTENT) + 5))
    assert download(f"{server.url}/file", tmp_path / "file", md5(CONTENT)).read_bytes() == CONTENT


def test_other_content_is_refused_and_removed(server, tmp_path):
    with pytest.raises(ValueError, match="md5 of the download is .*, not 00; try again later"):
        download(f"{server.url}/file", tmp_path / "file", "00")
    assert not list(tmp_path.glob("file*.part"))
    assert not (tmp_path / "file").exists()


def test_a_server_that_sends_nothing_is_given_up_and_what_came_is_kept(server, tmp_path):
    server.limit = 0
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    with pytest.raises(ConnectionError, match="failed 5 times without a new byte"):
        download(f"{server.url}/file", tmp_path / "file")
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:1000]


def test_a_missing_file_and_a_missing_server_are_said_at_once(server, tmp_path):
    with pytest.raises(ConnectionError, match="the server answers 404"):
        download(f"{server.url}/other", tmp_path / "file")
    with pytest.raises(ConnectionError, match="refused"):
        download("http://127.0.0.1:1/file", tmp_path / "file")


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            file.addfile(information, io.BytesIO(content))
    return path


def test_an_archive_appears_whole(tmp_path):
    unpack(make_tar(tmp_path / "a.tgz", {"set/train": b"1", "set/test": b"2"}), tmp_path)
    assert (tmp_path / "set" / "train").read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "set"]


@pytest.mark.parametrize("name", ["../outside", "set/../../outside", "{tmp_path}/outside"])
def test_an_archive_cannot_write_outside(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    archive = make_tar(tmp_path / "a.tgz", {"set/good": b"1", name.format(tmp_path=tmp_path): b"2"})
    with pytest.raises(ValueError, match="a.tgz: was not unpacked .*is not a plain file inside it"):
        unpack(archive, root)
    assert list(root.iterdir()) == []
    assert not (tmp_path / "outside").exists()


def test_a_link_in_an_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as file:
        link = tarfile.TarInfo("set/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        file.addfile(link)
    with pytest.raises(ValueError, match="set/link is not a plain file"):
        unpack(tmp_path / "a.tgz", tmp_path)


def test_an_archive_replaces_nothing(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(FileExistsError, match="set exists, but a.tgz contains it; move it away"):
        unpack(make_tar(tmp_path / "a.tgz", {"set/train": b"1"}), tmp_path)


def test_a_damaged_archive_leaves_nothing(tmp_path):
    archive = make_tar(tmp_path / "a.tgz", {"set/train": bytes(100_000)})
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(ValueError, match="a.tgz: was not unpacked"):
        unpack(archive, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


@pytest.fixture
def offered(server, tmp_path, monkeypatch):
    """cifar100 as the local server offers it: small parquet files, and an archive of class folders."""
    files = {}
    for split in ("train", "test"):
        write_parquet(tmp_path / "parquet" / f"{split}.parquet", [0, 1, 2] * 4)
        files[f"/{split}.parquet"] = (tmp_path / "parquet" / f"{split}.parquet").read_bytes()
    archive = tmp_path / "archive.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(write_folders(tmp_path / "folders"), "cifar100")
    files["/archive.tgz"] = archive.read_bytes()
    server.files = files
    source = replace(
        DATASETS["cifar100"],
        parquet={split: f"{server.url}/{split}.parquet" for split in ("train", "test")},
        archive=Archive(f"{server.url}/archive.tgz", md5(files["/archive.tgz"])),
        counts={"train": 12, "test": 12},
        fingerprints={},
    )
    monkeypatch.setitem(sources.DATASETS, "cifar100", source)
    return server


def test_parquet_is_downloaded_first_checked_and_kept(offered, tmp_path):
    root = tmp_path / "root"
    data = load_data("cifar100", root=root)
    assert data.class_names == ["apple", "bee", "cup"]
    assert data.notes == ()
    offered.files = {}
    assert load_data("cifar100", root=root).content_hash == data.content_hash


def test_where_parquet_fails_the_archive_is_taken(offered, tmp_path):
    del offered.files["/test.parquet"]
    data = load_data("cifar100", root=tmp_path / "root")
    assert data.class_names == ["cat", "dog"]
    assert not list((tmp_path / "root" / ".cache").glob("*.tgz"))


def test_wrong_content_is_discarded_and_never_loaded(offered, tmp_path, monkeypatch):
    del offered.files["/archive.tgz"]
    wrong = replace(sources.DATASETS["cifar100"], fingerprints={"train": "0" * 64})
    monkeypatch.setitem(sources.DATASETS, "cifar100", wrong)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="train differs from the official images or labels"):
            load_data("cifar100", root=tmp_path / "root")
    assert not list((tmp_path / "root").rglob("*.parquet"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenette"])
def test_without_a_network_one_line_says_where_to_put_the_files(name, tmp_path, monkeypatch):
    def offline(url, *_):
        raise ConnectionError(f"{url}: no network")

    monkeypatch.setattr(sources, "download", offline)
    with pytest.raises(ConnectionError, match=f"{name} is not under {tmp_path} .*put there by hand") as caught:
        load_data(name, root=tmp_path)
    assert "\n" not in str(caught.value)
    assert DATASETS[name].archive.url in str(caught.value)
    assert f"under {name}/" in str(caught.value)


def test_two_processes_share_one_download(server, tmp_path):
    threads = [threading.Thread(target=download, args=(f"{server.url}/file", tmp_path / "file")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_full_disk_is_said_with_the_path(server, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download_module, "progress_bar", full)
    with pytest.raises(OSError, match="No space left on device.*free some space") as caught:
        download(f"{server.url}/file", tmp_path / "file")
    assert "file.part" in str(caught.value)


def test_an_archive_that_lies_in_the_cache_is_unpacked_without_a_download(offered, tmp_path):
    """As an archive attached on Kaggle, which is a link; the archive itself stays."""
    attached = tmp_path / "attached.tgz"
    attached.write_bytes(offered.files["/archive.tgz"])
    data = tmp_path / "data"
    (data / ".cache").mkdir(parents=True)
    (data / ".cache" / "archive.tgz").symlink_to(attached)
    assert load_data("cifar100", root=data).class_names == ["cat", "dog"]  # of the archive
    assert attached.is_file()
    assert not (data / ".cache" / "archive.tgz").exists()

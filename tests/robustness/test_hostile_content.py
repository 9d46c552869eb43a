"""Content that is of the right format and hostile: bombs, loops, names that lead out of a folder, escape codes."""

import io
import json
import re
import tarfile
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.bad_files.image_readers import bomb
from benchmarks.bad_files.text_readers import NOTEBOOK
from benchmarks.bad_files.values import LAUGHS, MERGES
from kdhelpers import artifacts, load_data
from kdhelpers.data.readers import memory
from kdhelpers.data.readers.download import unpack
from kdhelpers.data.readers.unlabelled import read_unlabelled
from kdhelpers.messages import inform, short
from kdhelpers.suite.notebook_page import notebook_page
from kdhelpers.suite.profiles import load_profile
from kdhelpers.training.teacher_cache import TeacherCache


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (LAUGHS, "aliases stand for more than"),
        (MERGES, "aliases stand for more than"),
        ("&a [*a]", "alias stands within itself"),
        ("[" * 3000, "nested too deeply"),
        ("- " * 3000, "nested too deeply"),
        ("a: 1\nb: 2\na: 3", "the key a is given twice"),
        ("a: 2001-99-99", "month must be in"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("!!python/object/apply:os.system [exit]", "could not determine a constructor"),
        ("a: \0", "special characters are not allowed"),
        ("x" * 2**21, "more than the"),
    ],
)
def test_hostile_yaml_is_refused_at_once(tmp_path, text, complaint):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(ValueError, match=complaint) as refused:
        artifacts.load_yaml(path)
    assert time.process_time() - start < 3
    assert str(refused.value).startswith(f"{path}: ")
    assert str(refused.value).endswith("; correct it")


def test_aliases_and_merges_are_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("\ufeffa: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n", encoding="utf-8")
    assert artifacts.load_yaml(path) == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize("notebook", ["../outside", "sub/../01_teacher", "/outside", "01_teacher\0"])
def test_a_profile_names_no_notebook_elsewhere(tmp_path, notebook):
    (tmp_path / "outside.ipynb").write_text(json.dumps(NOTEBOOK))
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps([{"name": "a", "notebook": notebook}]))
    with pytest.raises(ValueError, match="unknown notebook"):
        load_profile(str(path))


def test_a_page_of_a_notebook_holds_no_other_file(root, monkeypatch):
    monkeypatch.setattr("kdhelpers.suite.notebook_page.notebooks_folder", lambda: root / "checkout" / "notebooks")
    (root / "checkout" / "notebooks").mkdir(parents=True)
    for place in (root / "secret.png", root / "checkout" / "own.png", root / "checkout" / "key.txt"):
        place.write_bytes(b"content of " + place.name.encode())
    links = "![a](../own.png) ![b](../../secret.png) ![c](../key.txt) ![d](/etc/hostname)"
    cells = [{"cell_type": "markdown", "metadata": {}, "id": "a", "source": links}]
    (root / "a.ipynb").write_text(json.dumps(NOTEBOOK | {"cells": cells}))
    page = notebook_page(root / "a.ipynb", root / "a.html").read_text()
    assert re.findall('base64,([^"]*)', page) == ["Y29udGVudCBvZiBvd24ucG5n"]
    assert "script-src" not in page
    assert "default-src 'none'" in page


def test_scripts_of_a_notebook_do_not_run(root):
    outputs = [{"output_type": "display_data", "metadata": {}, "data": {"text/html": "<script>alert(1)</script>"}}]
    code = {"cell_type": "code", "metadata": {}, "id": "b", "source": "", "execution_count": 1, "outputs": outputs}
    (root / "a.ipynb").write_text(json.dumps(NOTEBOOK | {"cells": [code]}))
    page = notebook_page(root / "a.ipynb", root / "a.html").read_text()
    assert page.index("Content-Security-Policy") < page.index("alert(1)")  # the policy has no script-src, so none runs


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(memory, "_of_machine", lambda: 64 << 20)


def test_an_npz_that_inflates_beyond_the_memory_is_refused_first(root, little_memory):
    folder = root / "data" / "pets"
    folder.mkdir(parents=True)
    zeros = np.zeros((30 << 20, 3), np.uint8)
    for split in ("train", "test"):
        np.savez_compressed(folder / f"{split}.npz", images=zeros, labels=np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=r"train.npz: .*need 0.1 GiB of memory, 0.1 GiB are free"):
        load_data("pets")


@pytest.mark.parametrize("kind", ["|u1", "|V0"])
def test_an_npz_that_declares_more_than_it_holds_is_refused_first(root, kind):
    folder = root / "data" / "pets"
    folder.mkdir(parents=True)
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': (1099511627776,), }}\n".encode()
    with zipfile.ZipFile(folder / "train.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match=r"train.npz: .*images.npy declares more values than it holds"):
        load_data("pets")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM"])
def test_an_image_that_declares_more_pixels_than_fit_is_refused_first(root, little_memory, kind):
    path = root / f"a.{kind.lower()}"
    path.write_bytes(bomb(kind, 9000))
    with pytest.raises(ValueError, match=r"has more than [\d,]+ pixels; save it smaller"):
        read_unlabelled(str(path))


def test_a_large_image_that_fits_is_read(root):
    Image.new("L", (3000, 3000)).save(root / "a.png")
    assert read_unlabelled(str(root / "a.png"), 8).images.shape == (1, 3, 8, 8)


def test_a_sparse_file_in_an_archive_is_refused(tmp_path):
    facts = tarfile.TarInfo("set/a.bin")
    sparse = {"major": "0", "minor": "1", "name": "set/a.bin", "size": str(2**42), "map": "0,0"}
    facts.pax_headers = {f"GNU.sparse.{name}": value for name, value in sparse.items()}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        file.addfile(facts, io.BytesIO())
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"a.tar: was not unpacked \(its member set/a.bin is not a plain file"):
        unpack(tmp_path / "a.tar", tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def cache_at(path):
    return TeacherCache(path, view_count=64, width=3, dtype=torch.float32, device=torch.device("cpu"), writes=True)


def test_a_cached_row_under_another_view_is_refused(tmp_path):
    cache = cache_at(tmp_path / "c")
    cache.add(torch.arange(4), torch.arange(12.0).view(4, 3))
    cache.save()
    entries = np.fromfile(cache.keys_file, np.int64)
    entries[0] = 40  # the checksum of its row is right
    entries.tofile(cache.keys_file)
    with pytest.raises(ValueError, match=r"\.keys: damaged; delete it"):
        cache_at(tmp_path / "c")


def test_a_cache_of_an_earlier_version_is_read(tmp_path):
    from kdhelpers.training.teacher_cache import _checksums

    cache = cache_at(tmp_path / "c")
    cache.add(torch.arange(4), torch.arange(12.0).view(4, 3))
    cache.save()
    raw = np.fromfile(cache.rows_file, np.uint8).reshape(4, -1)
    np.stack([np.arange(4), _checksums(raw)], 1).tofile(cache.keys_file)
    assert cache_at(tmp_path / "c").count == 4


def test_a_cache_without_a_whole_row_is_empty(tmp_path):
    cache = cache_at(tmp_path / "c")
    cache.add(torch.arange(1), torch.ones(1, 3))
    cache.save()
    cache.rows_file.write_bytes(b"x")
    assert cache_at(tmp_path / "c").count == 0


def test_the_state_of_decoded_images_names_no_file_elsewhere(root):
    folder = root / "data" / "pets"
    for number, name in enumerate(("cat", "dog")):
        for split in ("train", "test"):
            (folder / split / name).mkdir(parents=True)
            Image.new("L", (8, 8), 9 * number).save(folder / split / name / f"{split}{number}.png")
    first = load_data("pets", val_fraction=0)
    (states,) = (root / "data" / ".cache").glob("*.json")
    [state] = json.loads(states.read_text())
    states.write_text(json.dumps({state: "/../../outside"}))
    assert torch.equal(load_data("pets", val_fraction=0).train.images, first.train.images)
    assert re.fullmatch("[0-9a-f]{16}", json.loads(states.read_text())[state])


def test_a_device_and_a_pipe_are_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="is a device or a pipe; put a file there"):
            artifacts.load_json(path)


def test_what_is_printed_cannot_command_a_terminal(capsys):
    inform("a\x1b[2J\u202eb\nc\td é 漢")
    assert capsys.readouterr().err == "a\\x1b[2J\\u202eb\nc\td é 漢\n"
    assert short("a\n b" + "x" * 100, 20) == "a b" + "x" * 14 + "..."


def test_a_cell_whose_links_would_take_minutes_is_refused(root):
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "![" * 50_000}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    (root / "a.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(ValueError, match=r"a\.ipynb: a Markdown cell has 50,000 brackets; split it"):
        notebook_page(root / "a.ipynb", root / "a.html")

"""Content that is of the right format and hostile: bombs, loops, wrong values, names that lead out of a folder."""

import io
import json
import re
import tarfile
import time
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.bad_files.image_readers import bomb
from benchmarks.bad_files.text_readers import NOTEBOOK, PROFILE
from benchmarks.bad_files.values import LAUGHS, MERGES
from kdhelpers import artifacts, load_data, load_model
from kdhelpers.data.readers import memory
from kdhelpers.data.readers.download import unpack
from kdhelpers.data.readers.unlabelled import read_unlabelled
from kdhelpers.messages import inform, printable, short
from kdhelpers.models import build_model
from kdhelpers.suite.notebook_page import notebook_page
from kdhelpers.suite.notebooks import meanings_of, parameters_of, title_of
from kdhelpers.suite.profiles import load_profile
from kdhelpers.training.teacher_cache import TeacherCache
from kdhelpers.weights.head import head_path
from kdhelpers.weights.load import find_weights
from tests.record_fixtures import record

NAME = "teacher_resnet8_digits"
FEW = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
NUMBERS = st.integers(-(2**80), 2**80) | st.floats() | st.sampled_from([2**63, 10**400, -1, 0])
TEXTS = st.text(max_size=40) | st.sampled_from(
    ["../../x", "/etc/passwd", "\0", "\x1b[2J", "<script>", "\u202ex", "a:b", "9" * 5000]
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def places(value, above=()):
    """The path of each value in a tree."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(place for key, each in inner for place in places(each, (*above, key)))]


def replaced(value, place, new):
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = replaced(value[place[0]], place[1:], new)
    return copy


def changed(whole):
    """The tree with another value in one place."""
    return st.builds(replaced, st.just(whole), st.sampled_from(places(whole)), VALUES)


def refused_in_one_line(read, path):
    try:
        read()
    except (ValueError, OSError) as error:
        text = str(error)
        assert str(path) in text
        assert "; " in text
        assert "\n" not in text
        assert text == printable(text)
        assert len(text) < 1000


@FEW
@given(content=changed({key: value for key, value in record().items() if key != "history"}))
def test_a_record_with_any_value_in_any_place(tmp_path, content):
    path = tmp_path / "json_results" / f"{record()['name']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ROOT", str(tmp_path))
        artifacts.records.__globals__["_parsed"].clear()
        refused_in_one_line(lambda: artifacts.load_record(path.stem), path)
        for found in artifacts.records():
            assert artifacts.record_path(found["name"]) == path
            assert artifacts.weights_path(found["name"]).parent == artifacts.folder("weights")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A root with weights, and their description."""
    root = tmp_path_factory.mktemp("described")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ROOT", str(root))
        torch.manual_seed(0)
        path = artifacts.save_tensors(artifacts.weights_path(NAME), build_model("resnet8", 10).state_dict())
    facts = {"name": NAME, "identity": "0" * 64, "run": {"dataset": "digits", "model": "resnet8", "role": "teacher"}}
    facts |= {
        "model": "resnet8",
        "model_options": {},
        "num_classes": 10,
        "class_names": [str(digit) for digit in range(10)],
    }
    facts |= {"image_size": 8, "mean": [0.5] * 3, "std": [0.2] * 3, "sha256": artifacts.sha256(path), "copy_of": "x"}
    return path, facts


@FEW
@given(data=st.data())
def test_a_description_with_any_value_in_any_place(described, data):
    path, facts = described
    sidecar = path.with_suffix(".json")
    content = data.draw(changed(facts))
    sidecar.write_text(json.dumps(content))
    refused_in_one_line(lambda: load_model(str(path)), path.parent)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_classes", 10**12),
        ("image_size", 10**9),
        ("mean", [0.5, 0.5]),
        ("std", [0.2, 0, 0.2]),
        ("model", ["resnet8"]),
        ("model_options", {"width": 10**9}),
        ("name", "../../x"),
        ("copy_of", "../x"),
        ("notes", "a text"),
        ("run", [1]),
    ],
)
def test_a_wrong_field_of_a_description_is_named(described, field, value):
    path, facts = described
    path.with_suffix(".json").write_text(json.dumps(facts | {field: value}))
    with pytest.raises(ValueError, match=rf"{NAME}.json: .*(width|{field})"):
        load_model(str(path))


def test_a_description_that_is_a_folder_is_not_passed_over(root):
    path = artifacts.save_tensors(artifacts.weights_path(NAME), {"a": torch.ones(1)})
    path.with_suffix(".json").mkdir()
    with pytest.raises(IsADirectoryError, match=rf"{NAME}.json"):
        find_weights(NAME)


def test_a_head_of_another_form_is_named(described):
    path, facts = described
    artifacts.save_tensors(head_path(path), {"other": torch.ones(1)})
    head = {"head": {"sha256": artifacts.sha256(head_path(path))}, "run": facts["run"] | {"method": "simkd"}}
    path.with_suffix(".json").write_text(json.dumps(facts | head))
    with pytest.raises(ValueError, match=r"\.head: damaged \(KeyError.*; restore it"):
        load_model(str(path))


@FEW
@given(content=changed(PROFILE))
def test_a_profile_with_any_value_in_any_place(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(content))  # a subset of YAML
    refused_in_one_line(lambda: load_profile(str(path)), path)


@FEW
@given(content=changed(NOTEBOOK))
def test_a_notebook_with_any_value_in_any_place(tmp_path, content):
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(content))
    for read in (parameters_of, meanings_of, title_of):
        refused_in_one_line(lambda read=read: read(path), path)
    refused_in_one_line(lambda: notebook_page(path, tmp_path / "a.html"), path)


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


@pytest.mark.parametrize("notebook", ["../outside", "sub/../01_teacher", "/tmp/outside", "01_teacher\0"])
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


def test_a_record_of_a_name_that_leads_out_is_refused(root):
    path = artifacts.record_path("a")
    path.write_text(json.dumps(record() | {"name": "../../a"}))
    with pytest.raises(ValueError, match=r"a.json: name = .*is not the name of the file"):
        artifacts.load_record("a")
    for name in ("../a", "/etc/a", "x/../../a"):
        with pytest.raises(ValueError, match="leads out of json_results"):
            artifacts.load_record(name)


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

"""Any value in any place of a record, a description of weights, a profile, a notebook: read, or refused in one line."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.bad_files.text_readers import NOTEBOOK, PROFILE
from kdhelpers import artifacts, load_model
from kdhelpers.messages import printable
from kdhelpers.models import build_model
from kdhelpers.suite.notebook_page import notebook_page
from kdhelpers.suite.notebooks import meanings_of, parameters_of, title_of
from kdhelpers.suite.profiles import load_profile
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


def test_a_record_of_a_name_that_leads_out_is_refused(root):
    path = artifacts.record_path("a")
    path.write_text(json.dumps(record() | {"name": "../../a"}))
    with pytest.raises(ValueError, match=r"a.json: name = .*is not the name of the file"):
        artifacts.load_record("a")
    for name in ("../a", "/etc/a", "x/../../a"):
        with pytest.raises(ValueError, match="leads out of json_results"):
            artifacts.load_record(name)

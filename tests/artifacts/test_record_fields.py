"""Records are checked where they are read: wrong fields are named, and records of this checkout are whole."""

import json
import shutil

import pytest
import record_fixtures as fixtures
from pages import ROOT

from kdhelpers import artifacts

WRONG = {  # place in the record: values of a wrong type or range
    "name": [3, "other"],
    "run.model": [["a"], None, 3],
    "run.role": ["pupil"],
    "run.seed": [{}, -1, 1.5, True, "1"],
    "run.epochs": [-1, "8", 10**30],
    "run.hyperparameters": [["a"], "text"],
    "teacher.sha256": [3],
    "teacher.test_top1_pct": ["high", -1, 101],
    "metrics.test_top1_pct": ["high", True, [50.0], 1e300],
    "metrics.seconds_per_epoch": [-1, {}],
    "model.parameters": ["many", 1.5],
    "environment.device_name": [["chip"]],
    "history": ["text", [3], [{"loss": "high"}], {"loss": 1}],
    "notes": [3, "text", [3]],
    "resumed": [True],
    "data": [[1]],
}


def stored() -> dict:
    record = fixtures.record(**fixtures.LM)
    fixtures.store(record, fixtures.record(50.0))
    return record


@pytest.mark.parametrize(("place", "value"), [(place, value) for place, values in WRONG.items() for value in values])
def test_a_wrong_field_is_named_and_the_other_records_are_read(root, place, value):
    record = stored()
    *parts, field = place.split(".")
    (record[parts[0]] if parts else record)[field] = value
    path = artifacts.record_path("student_lm_resnet8_cifar100")
    path.write_text(json.dumps(record))
    [fault] = artifacts.damaged()
    assert fault.startswith(f"{path}: {place}")
    assert "; correct the file, or delete it" in fault or "; rename the file, or delete it" in fault
    assert [one["name"] for one in artifacts.records()] == ["student_si_resnet8_cifar100"]
    with pytest.raises(ValueError, match=r"student_lm_resnet8_cifar100\.json: "):
        artifacts.load_record(path.stem)
    assert artifacts.reserve(path.stem, "a" * 64, {"status": "running"}) != path.stem  # it is never overwritten


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[1, 2]", "x.json: is not a JSON object; correct"),
        ('{"schema": 99}', "schema = 99: this version reads 1"),
        ("{}", "schema = None"),
        ('{"schema": 1, "name": "x", "identity": "", "status": ""}', "identity = '': string"),
        ('{"schema": 1, "name": "x", "identity": "a", "status": "failed", "lr": NaN}', "damaged JSON"),
        ('{"schema": 1, "name": "x", "identity": "\\ud800", "status": "failed"}', "damaged JSON"),
        ("[" * 100_000, "damaged JSON"),
    ],
)
def test_a_file_that_is_not_a_record_of_this_version_is_named(root, content, says):
    path = artifacts.folder("results") / "x.json"
    path.write_text(content)
    [fault] = artifacts.damaged()
    assert fault.startswith(f"{path}: ")
    assert says in fault
    assert artifacts.records() == []


def test_a_folder_and_a_link_in_a_circle_are_named(root):
    (artifacts.folder("results") / "a.json").mkdir()
    (artifacts.folder("results") / "b.json").symlink_to("b.json")
    (artifacts.folder("results") / "c.json").symlink_to("nowhere.json")
    assert [fault.partition(": ")[2].partition(" (")[0] for fault in artifacts.damaged()] == ["cannot be read"] * 2


def test_only_the_first_faults_of_a_record_are_named(root):
    record = stored() | dict.fromkeys(("history", "notes", "teacher", "data", "model"), "x" * 99)
    artifacts.save_json(artifacts.record_path(record["name"]), record)
    [fault] = artifacts.damaged()
    assert ", 2 more; " in fault
    assert "x" * 40 not in fault


def test_the_records_of_this_checkout_are_whole(root):
    shutil.copytree(ROOT / "json_results", artifacts.folder("results"), dirs_exist_ok=True)
    assert artifacts.damaged() == []
    assert len(artifacts.records()) == len(list((ROOT / "json_results").glob("*.json")))

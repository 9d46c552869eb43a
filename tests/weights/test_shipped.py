"""The weights that the repository ships, listed in pth_models/SHA256SUMS: whole, small, and as accurate as recorded."""

import json
from pathlib import Path

import pytest

from kdhelpers import artifacts, infer, load_data, load_model
from kdhelpers.evaluation.metrics import evaluate

FOLDER = Path(__file__).resolve().parents[2] / "pth_models"
HASHES = {name: digest for digest, name in map(str.split, (FOLDER / "SHA256SUMS").read_text().splitlines())}
NETWORKS = [Path(name).stem for name in HASHES if name.endswith(".pth")]
LARGEST = 8_000_000  # bytes in all: a clone stays small
TOLERANCE = 0.05  # points: another processor rounds otherwise, and changes the class of an image or two


def test_each_file_has_its_hash_and_all_are_small():
    assert {name: artifacts.sha256(FOLDER / name) for name in HASHES} == HASHES
    assert sum((FOLDER / name).stat().st_size for name in HASHES) <= LARGEST


@pytest.mark.parametrize("name", NETWORKS)
def test_its_description_and_its_record_belong_to_it(name):
    described = json.loads((FOLDER / f"{name}.json").read_text())
    assert described["sha256"] == HASHES[f"{name}.pth"]
    if described["run"]["role"] == "teacher":
        return
    stored = FOLDER.parent / "json_results"
    record = next(
        path for path in (stored / f"{name}.json", stored / "methods_table" / f"{name}.json") if path.is_file()
    )
    assert json.loads(record.read_text())["weights"]["sha256"] == HASHES[f"{name}.pth"]


@pytest.mark.real_data
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_as_accurate_as_recorded(name):
    described = json.loads((FOLDER / f"{name}.json").read_text())
    top1 = evaluate(infer(load_model(str(FOLDER / f"{name}.pth")), load_data("cifar100"), "test"))["top1_pct"]
    assert top1 == pytest.approx(described["test_top1_pct"], abs=TOLERANCE)

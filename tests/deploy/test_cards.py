"""Model cards: the facts of the record, hostile names, other images than those of the training."""

import json

import pytest
import yaml

from kdhelpers import Run, artifacts, fit
from kdhelpers.data import Data
from kdhelpers.deploy.exporting import export

for library in ("onnx", "onnxscript", "onnxruntime", "safetensors"):
    pytest.importorskip(library)
QUICK = {"model": "resnet8", "batch_size": 32, "precision": "fp32", "lr": 0.1}


HOSTILE = [
    "no",
    "a: b",
    'it\'s "x"',
    "line\nbreak",
    "---",
    "<script>",
    "[x](javascript:1)",
    "| cell",
    "ünïcode",
    "null",
]


def test_a_card_survives_hostile_names(root, data, tmp_path):
    (root / "data" / "no").mkdir(parents=True)
    odd = Data("no", *(data.train, data.val, data.test), HOSTILE, None, None, data.mean, data.std)
    done = fit(Run(dataset="no", role="teacher", epochs=1, name="odd.name-1+x=y", **QUICK), odd)
    exported = export(done.name, "torchscript", output=tmp_path / "a b's.pt", data=odd, images=10)
    front, body = front_and_body(exported.card)
    assert front["datasets"] == ["no"]
    assert front["model-index"][0]["name"] == "odd.name-1+x=y"
    assert "license" not in front
    assert "<script>" not in body
    assert r"\[x\](javascript" in body
    assert r"\| cell" in body
    assert "line break" in body
    assert json.loads(exported.description.read_text())["class_names"] == HOSTILE


def front_and_body(card):
    empty, front, body = card.read_text().split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def test_a_card_has_the_facts_of_the_record(name, digits, tmp_path):
    record = artifacts.load_record(name)
    front, body = front_and_body(export(name, int8=True, output=tmp_path / "a.onnx", images=100).card)
    assert front["pipeline_tag"] == "image-classification"
    assert {"onnx", "int8", "image-classification"} <= set(front["tags"])
    assert "knowledge-distillation" not in front["tags"]  # it has no teacher
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
    assert "100 test images" in result["metrics"][0]["name"]
    assert f"{record['metrics']['test_top1_pct']:.2f} % top-1 on all {len(digits.test)} test images" in body
    assert f"{len(digits.train):,} training" in body
    assert "| epochs | 3 |" in body
    assert "| seed | 0 |" in body
    assert record["environment"]["device_name"] in body
    assert "rule best\\_val" in body
    assert "not evidence for a method" in body


def test_a_card_without_a_record_says_so(name, trained, tmp_path):
    path = artifacts.record_path(name)
    kept = path.read_bytes()
    path.unlink()
    try:
        _, body = front_and_body(export(name, "safetensors", output=tmp_path / "a.safetensors").card)
    finally:
        path.write_bytes(kept)
    assert "The record of the training is not stored here" in body
    assert "on all" not in body


def test_other_images_than_those_of_the_training_are_noted(name, digits, data, tmp_path, capsys):
    done = export(name, "torchscript", output=tmp_path / "a.pt", data=data, images=10)  # a part of the digits
    assert "are not those of the training" in capsys.readouterr().err
    assert "are not those of the training" in done.card.read_text()
    same = export(name, "torchscript", output=tmp_path / "b.pt", data=digits, images=10)
    assert "notes" not in same.facts

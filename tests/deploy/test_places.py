"""Where an export lies: what is kept, replaced or refused, two at once, an interrupted one, damaged descriptions."""

import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from kdhelpers import artifacts
from kdhelpers.cli.commands import main
from kdhelpers.deploy import exporting
from kdhelpers.deploy.exporting import export

for library in ("onnx", "onnxscript", "onnxruntime", "safetensors"):
    pytest.importorskip(library)


OWN = {"dataset": "digits", "model": "resnet8", "role": "student"}


def run(*arguments):
    return CliRunner().invoke(main, ["export", *arguments])


def test_the_same_export_is_kept_and_other_content_is_not_replaced(name, tmp_path, monkeypatch):
    path = tmp_path / "a.onnx"
    first = export(name, output=path, images=20)
    monkeypatch.setattr(exporting, "_made", None)  # nothing may be made again
    assert export(name, output=path, images=20).facts == first.facts
    for change in ({"images": 30}, {"pixels": "float"}, {"int8": True}):
        with pytest.raises(ValueError, match=r"output = .*a.onnx: exists and has other content; .*force"):
            export(name, output=path, **{"images": 20} | change)
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="exists and has other content"):
        export(name, output=path, images=20)
    assert path.read_bytes() == b"mine"
    monkeypatch.undo()


def test_force_replaces_a_file(name, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    done = run(name, "--format", "safetensors", "--output", str(tmp_path / "a.safetensors"), "--force")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.safetensors").stat().st_size > 1000


def test_without_an_output_the_file_lies_in_the_folder_of_exports(name, trained):
    done = run(name, "--format", "safetensors")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(str(trained / "pth_models" / "exports" / f"{name}.safetensors"))
    assert "tensors were read back and are equal" in done.output


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"class_names": 5}, "class_names = 5: input should be a valid list"),
        ({"class_names": ["a"]}, "class_names: has 1 names for 10 classes"),
        ({"mean": [0.5]}, r"mean = \[0.5\]: list should have at least 3 items"),
        ({"std": [0.5, 0.0, 0.5]}, "std.1 = 0.0: input should be greater than 0"),
        ({"run": {}}, "run.dataset: is missing"),
        ({"teacher": "resnet20"}, "teacher = 'resnet20': is not a JSON object"),
        ({"notes": 5}, "notes = 5: input should be a valid list"),
        ({"run": OWN | {"split_seed": "x"}}, "run.split_seed = 'x': input should be a valid integer"),
        ({"run": OWN | {"method": 5}}, "run.method = 5: input should be a valid string"),
        ({"head": "simkd"}, "head = 'simkd': is not a JSON object"),
    ],
)
def test_a_damaged_description_is_named_with_its_field(wrong, fault, name, trained, tmp_path, monkeypatch):
    for suffix in (".pth", ".json"):
        shutil.copy(trained / "pth_models" / f"{name}{suffix}", tmp_path / f"copy{suffix}")
    sidecar = tmp_path / "copy.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | wrong))
    with pytest.raises(ValueError, match=f"copy.json: {fault}.*; restore the file"):
        export(str(tmp_path / "copy.pth"), output=tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_description_without_a_field_is_named_with_the_command_that_makes_one(name, trained, tmp_path):
    for suffix in (".pth", ".json"):
        shutil.copy(trained / "pth_models" / f"{name}{suffix}", tmp_path / f"copy{suffix}")
    content = json.loads((tmp_path / "copy.json").read_text())
    content = {field: value for field, value in content.items() if field != "std"} | {"class_names": None}
    (tmp_path / "copy.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"lacks class_names, std; `python -m kdhelpers teachers --file .*copy\.pth"):
        export(str(tmp_path / "copy.pth"), output=tmp_path / "out.onnx")


def test_the_place_of_a_file_is_checked_before_the_conversion(name, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_made", None)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.pt", tmp_path / ("a" * 300), tmp_path / ("a" * 250)):
        with pytest.raises(OSError, match=r"output = .*: cannot be written \(.*\); name another file"):
            export(name, "torchscript", output=path)
    with pytest.raises(ValueError, match=f"output = {os.devnull}: is not a regular file; name another file"):
        export(name, "torchscript", output=os.devnull, force=True)
    for own in (f"{name}.pth", name):  # <name>.json describes the weights
        with pytest.raises(ValueError, match=f"would replace a file of the weights {name}; name another file"):
            export(name, "torchscript", output=trained / "pth_models" / own, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("taken", ["a.json", "a.md"])
def test_a_description_or_a_card_of_other_content_is_not_replaced(taken, name, tmp_path):
    (tmp_path / taken).write_text("{}")
    with pytest.raises(ValueError, match=f"output = .*{taken}: exists and has other content"):
        export(name, "torchscript", output=tmp_path / "a")


@pytest.mark.parametrize("written", [0, 1, 2])
def test_an_interrupted_export_is_made_again_without_force(written, name, tmp_path, monkeypatch):
    calls, own = [], artifacts.write_atomic

    def killed(path, content):
        if not path.name.endswith(".probe"):
            calls.append(path)
            if len(calls) > written:
                raise KeyboardInterrupt
        return own(path, content)

    with monkeypatch.context() as context:
        for place in ("kdhelpers.artifacts.write_atomic", "kdhelpers.artifacts.files.write_atomic"):
            context.setattr(place, killed)
        with pytest.raises(KeyboardInterrupt):
            export(name, "torchscript", output=tmp_path / "a.pt", images=10)
    assert not (tmp_path / "a.pt").exists()  # a file never lies there without its description
    done = export(name, "torchscript", output=tmp_path / "a.pt", images=10)
    assert done.facts["sha256"] == artifacts.sha256(done.path)
    done.card.unlink()
    assert export(name, "torchscript", output=tmp_path / "a.pt", images=10).card.is_file()


def test_of_two_exports_to_one_file_the_second_waits_and_finds_the_first(name, tmp_path, monkeypatch):
    made, entered, own = [], threading.Event(), exporting._made

    def slow(*arguments):
        made.append(1)
        entered.set()
        time.sleep(0.3)
        return own(*arguments)

    monkeypatch.setattr(exporting, "_made", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(export, name, "safetensors", output=tmp_path / "a", images=10)
        entered.wait(20)
        second = pool.submit(export, name, "safetensors", output=tmp_path / "a", images=10)
        assert first.result().facts == second.result().facts
    assert made == [1]


def test_a_damaged_record_is_named_before_the_conversion(name, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_made", None)
    path = artifacts.record_path(name)
    kept = path.read_bytes()
    path.write_text("{")
    try:
        with pytest.raises(ValueError, match=f"{name}.json: damaged JSON"):
            export(name, "torchscript", output=tmp_path / "a")
    finally:
        path.write_bytes(kept)

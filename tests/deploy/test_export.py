"""Exports: what a file computes, which images it was calibrated on, what is refused, what its card has."""

import json
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import nn

from kdhelpers import Run, artifacts, fit, infer, load_model, python_paths
from kdhelpers.cli.commands import main
from kdhelpers.data import Data, Split
from kdhelpers.deploy import checking, exporting, extras, quantizing, runtime
from kdhelpers.deploy.exporting import export
from kdhelpers.deploy.formats import to_onnx
from kdhelpers.deploy.network import Deployable, draw
from kdhelpers.weights.load import load_weights

for library in ("onnx", "onnxscript", "onnxruntime", "safetensors"):
    pytest.importorskip(library)

CODE = """
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self, num_classes, width=8):
        stem = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        super().__init__(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
"""
QUICK = {"model": "resnet8", "batch_size": 32, "precision": "fp32", "lr": 0.1}

OWN = {"dataset": "digits", "model": "resnet8", "role": "student"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A root with a teacher of the digits, trained for three epochs."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ROOT", str(root))
        patch.delenv("KD_DATA", raising=False)
        fit(Run(role="teacher", epochs=3, augmentation="crop=2", **QUICK))
    return root


@pytest.fixture
def name(trained, monkeypatch, tmp_path):
    monkeypatch.setenv("KD_ROOT", str(trained))
    monkeypatch.delenv("KD_DATA", raising=False)
    return "teacher_resnet8_digits"


def run(*arguments):
    return CliRunner().invoke(main, ["export", *arguments])


def expected(name, data, images):
    """The logits of PyTorch, by the path of all other commands."""
    return infer(load_model(name), data, Split(images, torch.zeros(len(images), dtype=torch.int64))).logits.numpy()


@pytest.fixture(scope="module")
def digits():
    from kdhelpers import load_data

    return load_data("digits")


@pytest.mark.parametrize(
    ("form", "pixels"), [("onnx", "uint8"), ("onnx", "float"), ("torchscript", "uint8"), ("torchscript", "float")]
)
def test_a_file_gives_the_logits_of_pytorch_on_plain_images(form, pixels, name, digits, tmp_path):
    done = export(name, form, pixels=pixels, output=tmp_path / "file", images=40)
    content = done.path.read_bytes()
    runner = runtime.onnx_runner(content) if form == "onnx" else runtime.torchscript_runner(content)
    images = digits.test.images[:7]
    given = images.numpy() if pixels == "uint8" else (images.float() / 255).numpy()
    for count in (1, 2, 7):  # the batch is dynamic
        logits = runner(given[:count])
        np.testing.assert_allclose(logits, expected(name, digits, images)[:count], rtol=1e-4, atol=1e-4)
    facts = json.loads(done.description.read_text())
    assert facts["check"]["images"] == 40
    assert facts["check"]["largest_difference"] < facts["check"]["allowed"]
    assert facts["sha256"] == artifacts.sha256(done.path)
    assert facts["input"]["type"].startswith({"uint8": "uint8", "float": "float32"}[pixels])


def test_an_onnx_file_has_its_opset_and_its_metadata(name, tmp_path):
    import onnx

    model = onnx.load(export(name, output=tmp_path / "a.onnx", images=20).path)
    onnx.checker.check_model(model)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    entries = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(entries["class_names"]) == list("0123456789")
    assert (entries["image_size"], entries["dataset"], entries["model"]) == ("16", "digits", "resnet8")


def test_safetensors_has_the_weights_and_how_to_build_the_network(name, digits, tmp_path):
    from safetensors import safe_open

    path = export(name, "safetensors", output=tmp_path / "a.safetensors").path
    with safe_open(path, "pt") as file:
        facts, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    from kdhelpers import build_model

    network = build_model(facts["model"], len(json.loads(facts["class_names"])), **json.loads(facts["model_options"]))
    load_weights(network, state, "a.safetensors")
    images = digits.test.images[:3]
    mean, std = (torch.tensor(json.loads(facts[key])).view(3, 1, 1) for key in ("mean", "std"))
    logits = network.eval()((images / 255 - mean) / std).detach().numpy()
    np.testing.assert_allclose(logits, expected(name, digits, images), rtol=1e-4, atol=1e-4)


def test_int8_beats_chance_is_smaller_and_is_calibrated_on_training_images(name, digits, tmp_path, monkeypatch):
    seen = []
    original = quantizing.Images

    def noting(images):
        seen.extend(images)
        return original(images)

    monkeypatch.setattr(quantizing, "Images", noting)
    whole = export(name, output=tmp_path / "a.onnx")
    small = export(name, int8=True, output=tmp_path / "b.onnx")
    paired = small.facts["int8_cost"]
    assert paired["images"] == len(digits.test)
    assert paired["top1_pct"] > 40
    assert abs(paired["top1_pct"] - paired["float_top1_pct"]) < 5
    assert paired["difference_pct"] == pytest.approx(paired["top1_pct"] - paired["float_top1_pct"])
    assert small.facts["bytes"] < 0.5 * whole.facts["bytes"]
    train, test = ({image.tobytes() for image in split.images.numpy()} for split in (digits.train, digits.test))
    assert small.facts["calibration"] == {"split": "train", "images": 256, "seed": 0, "ranges": "minimum and maximum"}
    assert len(seen) == 256
    assert {image.tobytes() for image in seen} <= train - test
    runner, images = runtime.onnx_runner(small.path), digits.test.images.numpy()
    hits = runtime.batched(runner, images).argmax(1) == digits.test.labels.numpy()
    assert 100 * hits.mean() == pytest.approx(paired["top1_pct"])


def test_the_drawn_images_are_the_same_each_time_and_have_their_labels(digits):
    first, second = draw(digits.train, 50), draw(digits.train, 50)
    assert torch.equal(first.images, second.images)
    assert len({image.tobytes() for image in first.images.numpy()}) > 45
    assert len(draw(digits.test, 10_000)) == len(digits.test)


def test_a_file_that_computes_something_else_is_not_written(name, tmp_path, monkeypatch):
    class Wrong(Deployable):
        def forward(self, images):
            return super().forward(images) * 1.01

    monkeypatch.setattr("kdhelpers.deploy.network.Deployable", Wrong)
    for form in ("onnx", "torchscript"):
        with pytest.raises(ValueError, match=f"format = {form}: the logits differ from PyTorch's by up to .*nothing"):
            export(name, form, output=tmp_path / "file", images=20)
    assert not list(tmp_path.iterdir())


def test_a_fixed_batch_is_refused(name, digits):
    def fixed(images):
        if len(images) != 40:
            raise RuntimeError("expected 40")
        return expected(name, digits, torch.from_numpy(images))

    reference = infer(load_model(name), digits, digits.test.select(torch.arange(40)))
    with pytest.raises(ValueError, match="format = onnx: the file does not run on batches of other sizes .expected 40"):
        checking.check(fixed, digits.test.images[:40].numpy(), reference, "onnx")


def test_logits_that_are_not_finite_are_refused(name, digits):
    reference = infer(load_model(name), digits, digits.test.select(torch.arange(4)))
    broken = lambda images: np.full((len(images), 10), np.nan, np.float32)  # noqa: E731
    images = digits.test.images[:4].numpy()
    with pytest.raises(ValueError, match="differ from PyTorch's by up to nan"):
        checking.check(broken, images, reference, "onnx")
    with pytest.raises(ValueError, match="int8 = True: the logits are not finite; nothing was written"):
        checking.cost(broken, images, reference)


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
    ("arguments", "complaint"),
    [
        (("--format", "onx"), "format = onx: unknown; did you mean onnx?"),
        (("--format", "torchscript", "--int8"), "int8 = True: needs format onnx, not torchscript"),
        (("--input", "int"), "pixels = int: unknown"),
        (("--images", "0"), "Invalid value for '--images'"),
        (("--output", "."), "output = .: is a folder; name a file in it"),
    ],
)
def test_bad_arguments_are_named(arguments, complaint, name):
    done = run(name, *arguments)
    assert done.exit_code in (1, 2)
    assert complaint in done.output
    assert done.output.count("\n") == 1


def test_a_missing_extra_is_named_before_anything_is_loaded(name, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda library: None)
    monkeypatch.setattr(exporting, "load_source", None)
    for form, libraries in (
        ("onnx", "onnx, onnxscript, onnxruntime, which are"),
        ("safetensors", "safetensors, which is"),
    ):
        done = run(name, "--format", form)
        assert done.exit_code == 1
        remedy = "not installed: pip install -r requirements-export.txt"
        assert done.output == f"error: format = {form}: needs {libraries} {remedy}\n"


def test_torchscript_needs_no_extra(name, tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda library: None)
    assert export(name, "torchscript", output=tmp_path / "a.pt", images=20).path.is_file()


def test_unknown_weights_and_weights_without_description(root):
    done = run("student_lm_resnet8_digits")
    assert "weights = student_lm_resnet8_digits: not trained yet" in done.output
    from kdhelpers import build_model

    artifacts.save_tensors(root / "plain.pth", build_model("resnet8", 10).state_dict())
    done = run(str(root / "plain.pth"))
    assert "plain.pth: has no description; `python -m kdhelpers teachers --file" in done.output


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"class_names": None}, "class_names = None: input should be a valid list"),
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


def test_the_check_needs_an_image(name, tmp_path):
    with pytest.raises(ValueError, match="images = 0: the check needs test images; take 1 or more"):
        export(name, output=tmp_path / "out.onnx", images=0)


def test_a_student_with_a_head_is_exported_with_it(root, data, tmp_path):
    fit(Run(role="teacher", epochs=1, **QUICK), data)
    student = fit(Run(method="simkd", teacher="resnet8", epochs=2, **QUICK), data)
    images = data.test.images[:5]
    wanted = expected(student.name, data, images)
    alone = infer(load_model(student.name, head=False), data, Split(images, torch.zeros(5, dtype=torch.int64)))
    assert np.abs(alone.logits.numpy() - wanted).max() > 0.1
    for form in ("onnx", "torchscript"):
        done = export(student.name, form, output=tmp_path / form, data=data)
        content = done.path.read_bytes()
        runner = runtime.onnx_runner(content) if form == "onnx" else runtime.torchscript_runner(content)
        np.testing.assert_allclose(runner(images.numpy()), wanted, rtol=1e-4, atol=1e-4)
        assert done.facts["head_sha256"]


@pytest.fixture
def own(root, monkeypatch):
    monkeypatch.setattr(python_paths, "_given", set())
    (root / "own_tiny.py").write_text(CODE)
    monkeypatch.syspath_prepend(root)
    yield "own_tiny:Tiny"
    sys.modules.pop("own_tiny", None)


def test_an_own_network_is_exported_only_if_its_path_is_given(own, monkeypatch):
    name = fit(Run(role="teacher", epochs=1, **QUICK | {"model": own})).name
    monkeypatch.setattr(python_paths, "_given", set())  # another process
    refused = run(name)
    assert refused.exit_code == 1
    assert "only code that you give is imported" in refused.output
    assert f"--network {own}" in refused.output
    done = run(name, "--network", own, "--images", "30")
    assert done.exit_code == 0, done.output


def test_a_network_that_cannot_be_exported_is_an_error_of_one_line(capfd):
    source = Deployable(nn.Identity(), [0.5] * 3, [0.2] * 3)
    source.network.forward = lambda images: images if float(images.sum()) > 0 else -images
    with pytest.raises(
        ValueError, match=r"format = onnx: torch cannot export this network \(.*\); try torchscript"
    ) as fault:
        to_onnx(source, torch.zeros(2, 3, 8, 8, dtype=torch.uint8), {})
    assert "Could not guard on data-dependent expression" in str(fault.value)  # the cause, not torch's advice
    assert "\x1b" not in str(fault.value)
    assert capfd.readouterr() == ("", "")  # torch prints the graph


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

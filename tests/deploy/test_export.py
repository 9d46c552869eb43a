"""Exports: what a file computes, which images it was calibrated on, what is refused."""

import json
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from kdhelpers import Run, artifacts, fit, infer, load_model, python_paths
from kdhelpers.cli.commands import main
from kdhelpers.data import Split
from kdhelpers.deploy import checking, exporting, extras, quantizing, runtime
from kdhelpers.deploy.exporting import export
from kdhelpers.deploy.formats import to_onnx
from kdhelpers.deploy.network import Deployable, draw
from kdhelpers.weights.load import load_weights

for library in ("onnx", "onnxscript", "onnxruntime", "safetensors"):
    pytest.importorskip(library)
QUICK = {"model": "resnet8", "batch_size": 32, "precision": "fp32", "lr": 0.1}

CODE = """
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self, num_classes, width=8):
        stem = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        super().__init__(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
"""


def run(*arguments):
    return CliRunner().invoke(main, ["export", *arguments])


def expected(name, data, images):
    """The logits of PyTorch, by the path of all other commands."""
    return infer(load_model(name), data, Split(images, torch.zeros(len(images), dtype=torch.int64))).logits.numpy()


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

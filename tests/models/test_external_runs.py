"""Runs with networks of timm and by Python path: as teacher and student, stored, found and loaded elsewhere."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from kdhelpers import DATASETS, METHODS, Run, artifacts, fit, load_model, python_paths, run_of
from kdhelpers.analysis import gradcam_maps
from kdhelpers.cli.commands import main
from kdhelpers.models import build_model
from kdhelpers.training.command import run_from
from kdhelpers.training.controls import ensure_teacher, without_teacher
from kdhelpers.training.inputs import Inputs
from kdhelpers.training.loop import batches_of
from kdhelpers.training.student import Training
from kdhelpers.training.teacher import Teacher

pytest.importorskip("timm")

VIT, OPTIONS = "timm:vit_tiny_patch16_224", {"patch_size": 4, "depth": 4, "embed_dim": 48, "num_heads": 3}
QUICK = {"epochs": 1, "batch_size": 40, "precision": "fp32"}
OF_VIT = {"model": VIT, "model_options": OPTIONS, "optimizer": "adamw", "lr": 1e-3}
CODE = """
from torch import nn

class TinyNet(nn.Sequential):
    def __init__(self, num_classes, width=8):
        stem = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        super().__init__(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
"""


@pytest.fixture
def own(root, importable):
    return f"{importable('own_tiny', CODE)}:TinyNet"


def elsewhere(code, root):
    """The output of the code in another process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    return done.stdout + done.stderr


def test_a_vit_learns_from_a_convnet_and_a_convnet_from_a_vit(root, data):
    fit(Run(model="resnet8", role="teacher", **QUICK), data)
    student = fit(Run(method="lm", teacher="resnet8", **OF_VIT, **QUICK), data)
    assert student.name == "student_lm_timm-vit_tiny_patch16_224_digits"
    assert student.record["library"]["name"] == "timm"
    assert student.record["model"]["macs"] > 0
    teacher = fit(Run(role="teacher", **OF_VIT, **QUICK), data)
    assert teacher.name == "teacher_timm-vit_tiny_patch16_224_digits"
    other = fit(Run(model="resnet8", method="crd", teacher=VIT, **QUICK), data)
    assert other.record["teacher"]["model"] == VIT
    assert fit(Run(model="resnet8", method="crd", teacher=VIT, **QUICK), data).cached
    maps = gradcam_maps(teacher.model, data, torch.arange(2))
    assert maps.shape == (2, 16, 16)
    assert maps.max() > 0  # the last block's patch tokens have no gradient: an earlier block is taken

    code = f"""
import torch
from kdhelpers import load_model
print(load_model({student.name!r})(torch.ones(1, 3, 16, 16)).sum().item())"""
    expected = student.model(torch.ones(1, 3, 16, 16)).sum().item()
    assert float(elsewhere(code, root)) == pytest.approx(expected, abs=1e-4)
    sidecar = json.loads(student.weights_path.with_suffix(".json").read_text())
    assert (sidecar["model"], sidecar["model_options"], sidecar["image_size"]) == (VIT, OPTIONS, 16)
    assert sidecar["library"].keys() == {"name", "version"}
    outcome = CliRunner().invoke(main, ["compare", student.name, teacher.name])
    assert "A - B" in outcome.output or "data hashes differ" in outcome.output


def training(run, data, teacher):
    inputs = Inputs(run, data, torch.device("cpu"), "fp32", teacher)
    return Training(inputs, batches_of([inputs]))


def one_step(student, teacher, method, data, options):
    method_options = {"hyperparameters": {"hint_epochs": 1}} if method == "hints" else {}
    fields = QUICK | {"epochs": 2, "augmentation": "crop flip randaugment=2/10 cutout=8"}
    unlabelled = {"unlabelled": "train:80"} if METHODS[method].uses_unlabelled else {}
    trains_classifier = METHODS[method](**method_options.get("hyperparameters", {})).trains_classifier
    selection = {} if trains_classifier else {"selection": "last"}
    run = Run(
        model=student, model_options=options, method=method, teacher="any", **method_options, **fields, **unlabelled,
        **selection,
    )  # fmt: skip
    state = training(run, data, teacher)
    state.begin_epoch()
    state.step(next(iter(state.batches.epoch(1))))
    return state


MAPS = ("feature_maps", "final_map", "pre_activations")
LOGIT_METHODS = [
    name
    for name, method in METHODS.items()
    if method(**({"hint_epochs": 1} if name == "hints" else {})).needs_teacher
    and not set(method.reads) & {*MAPS}
    and not method().uses_unlabelled
]


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return build_model(VIT, 10, image_size=16, **OPTIONS)


@pytest.mark.parametrize("method", LOGIT_METHODS)
def test_methods_of_logits_and_embeddings_take_pairs_of_families(method, data, vit):
    one_step("resnet8", Teacher(vit), method, data, {})
    convnet = Teacher(build_model("resnet8", 10))
    state = one_step(VIT, convnet, method, data, OPTIONS)
    assert all(parameter.isfinite().all() for parameter in state.network.parameters())


@pytest.mark.parametrize("method", ["at", "nst", "vid", "sp", "ickd", "hints", "reviewkd"])
def test_methods_of_maps_report_the_maps_that_they_take(method, data, vit, capsys):
    capsys.readouterr()
    one_step("resnet8", Teacher(vit, pre_activations=True), method, data, {})
    line = {"sp": "layer3 > blocks.3", "ickd": "layer3 > blocks.3", "hints": "layer2 > blocks.1"}.get(
        method, "layer1 > blocks.0, layer2 > blocks.1, layer3 > blocks.3"
    )
    assert f"feature maps, student > teacher: {line}\n" in capsys.readouterr().err


def test_maps_that_cannot_be_paired_are_refused_with_a_way_out(data):
    teacher = Teacher(build_model("torchvision:mnasnet0_5", 10, image_size=32))
    with pytest.raises(ValueError, match=r"the student has 3 .*the teacher 4 .*or choose them: model_options="):
        one_step("resnet8", teacher, "at", data, {})


@pytest.mark.parametrize("method", ["simkd", "catkd", "sdd"])
def test_methods_of_the_final_map_say_what_they_need(method, data):
    convnet = Teacher(build_model("resnet8", 10))
    with pytest.raises(ValueError, match=f"method {method} reads final_map, which needs a feature map whose average"):
        one_step(VIT, convnet, method, data, OPTIONS)


def test_an_own_network_is_trained_and_found_again(own, data, root, capsys):
    run = Run(model=own, model_options={"width": 4}, **QUICK)
    student = fit(run, data)
    assert student.name == "student_si_own_tiny-TinyNet_digits"
    assert fit(run_of({"model": own, "model_options": "width:4", **QUICK}), data).cached
    (root / "own_tiny.py").write_text(CODE + "# edited\n")
    again = Run(model=own, model_options={"width": 4}, **QUICK)
    assert again.id != run.id  # an edited file makes another run
    load_model(student.name)
    assert "own_tiny:TinyNet has changed since these weights were trained" in capsys.readouterr().err


def test_weights_of_own_code_are_loaded_where_the_user_gives_the_code(own, data, root, monkeypatch):
    student = fit(Run(model=own, role="teacher", **QUICK), data)
    load = f"from kdhelpers import load_model; print(type(load_model({student.name!r}MORE)).__name__)"
    refused = elsewhere(load.replace("MORE", ""), root)
    assert f"{student.name}.json names this code, and only code that you give is imported" in refused
    assert f"give model='{own}'" in refused
    assert elsewhere(load.replace("MORE", f", model={own!r}"), root) == "TinyNet\n"
    monkeypatch.setattr(python_paths, "_given", set())
    monkeypatch.setattr("kdhelpers.data.load_data", lambda *arguments: data)
    for extra, text in ([], "only code that you give"), (["--network", own], "A - B: +0.00 points"):
        assert text in CliRunner().invoke(main, ["compare", student.name, student.name, *extra]).output


def test_no_file_makes_the_package_import_code(own, data, root):
    """Records, sidecars and runs as JSON name the code; nothing that reads them imports it."""
    student = fit(Run(model=own, role="teacher", **QUICK), data)
    pupil = fit(Run(model="resnet8", method="lm", teacher=own, **QUICK), data)
    (root / "run.json").write_text(json.dumps(student.record["run"]))
    code = f"""
import sys
from kdhelpers import artifacts, describe_teacher, load_model, fit, results, tables, Run, build_model
from kdhelpers.report.gallery import write_gallery
from kdhelpers.training.command import run_from
from kdhelpers.training.controls import with_untrained_teacher
record = artifacts.load_record({student.name!r})
description = describe_teacher({student.name!r}, "digits")
results(), write_gallery()
attempts = [
    lambda: load_model({student.name!r}),
    lambda: Run(**record["run"]),
    lambda: Run(**artifacts.load_record({pupil.name!r})["run"]),
    lambda: Run(model=description["model"]),
    lambda: build_model(description["model"], 10),
    lambda: run_from(["run.json"]),
    lambda: with_untrained_teacher(Run(method="lm", teacher={student.name!r})),
    lambda: fit(Run(method="lm", teacher={student.name!r}, epochs=1)),
]
for attempt in attempts:
    try:
        attempt()
    except ValueError as error:
        print("refused" if "only code that you give" in str(error) else error)
print("own_tiny" in sys.modules)
"""
    assert elsewhere(code, root).split("\n")[:-1] == ["refused"] * 8 + ["False"]
    assert run_from([str(root / "run.json"), f"model={own}"]).model == own  # the user's word counts


def test_a_missing_teacher_names_the_command(root):
    with pytest.raises(FileNotFoundError, match=f"`python -m kdhelpers train dataset=digits model={VIT} role=teacher`"):
        fit(Run(method="lm", teacher=VIT))


def test_flat_names_choose_nodes_and_point_at_the_networks_own_options():
    assert run_of({"model": VIT, "feature_maps": "blocks.0,blocks.3"}).model_options["feature_maps"][1] == "blocks.3"
    with pytest.raises(ValueError, match="patch_size = 4: unknown.*for the network itself: model_options=patch_size:4"):
        run_of({"model": VIT, "patch_size": "4"})


def test_names_of_files_have_no_colon(root):
    run = Run(method="lm", teacher="resnet8", name=f"student_of_{VIT}", **OF_VIT)
    assert run.artifact_name == "student_of_timm-vit_tiny_patch16_224"
    control = without_teacher(Run(method="lm", teacher="resnet8", **OF_VIT))
    assert control.artifact_name == "student_si_adamw_timm-vit_tiny_patch16_224_digits"
    renamed = control.model_copy(update={"name": f"student_si_jitter_{VIT}"})
    assert renamed.artifact_name == "student_si_jitter_timm-vit_tiny_patch16_224"
    assert artifacts.file_name("nets/tiny.py:Tiny") == "nets-tiny.py-Tiny"
    assert artifacts.file_name("resnet8") == "resnet8"


def test_a_teacher_of_another_library_is_trained_where_it_is_missing(root, data):
    run = Run(model="resnet8", method="lm", teacher="timm:resnet10t", **QUICK)
    ensure_teacher(run, data)
    assert artifacts.weights_path("teacher_timm-resnet10t_digits").is_file()


def test_pretrained_weights_leave_their_note(root, data, monkeypatch):
    from torchvision import models

    stored = models.mnasnet0_5(num_classes=1000)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda url, **options: stored.state_dict())
    leaky = dataclasses.replace(DATASETS["digits"], imagenet_leak="its test images were trained on")
    monkeypatch.setitem(DATASETS, "digits", leaky)
    student = fit(Run(model="torchvision:mnasnet0_5", pretrained=True, **QUICK), data)
    assert student.record["library"]["weights"] == "IMAGENET1K_V1"
    assert student.record["imagenet_starts"] == ["student torchvision:mnasnet0_5"]
    assert student.record["notes"][0].startswith("leakage: the student torchvision:mnasnet0_5 started from ImageNet")


def test_the_command_lists_nodes_and_names():
    run = CliRunner().invoke
    table = run(main, ["network", VIT, "patch_size=8", "depth=2"]).output
    assert "blocks.1" in table
    assert "embedding 192: its input" in table
    assert "timm:vit_tiny_patch16_224\n" in run(main, ["network", "timm:vit_tiny*"]).output
    assert run(main, ["network", "torchvision:nope"]).exit_code == 1


def test_weights_of_ones_own_network_are_registered_with_its_options(own, root, monkeypatch):
    monkeypatch.setattr("kdhelpers.zoo.register.NEAR_CHANCE", -1)
    torch.save(build_model(own, 10, width=4).state_dict(), root / "own.pth")
    python_paths._given.clear()
    command = ["teachers", "--file", str(root / "own.pth"), "--model", own, "--dataset", "digits"]
    result = CliRunner().invoke(main, [*command, "--model-options", "width:4"])
    assert result.exit_code == 0, result.output
    name = "teacher_own_tiny-TinyNet_digits"
    assert artifacts.load_record(name)["run"]["model_options"]["width"] == 4
    assert load_model(name)[3].in_features == 4


def test_a_run_of_json_text_imports_nothing(own):
    with pytest.raises(ValueError, match="only code that you give is imported"):
        Run.model_validate_json(json.dumps({"model": own}))
    assert "own_tiny" not in sys.modules
    assert Run.model_validate_json(Run(model="resnet20").model_dump_json()).model == "resnet20"
    assert isinstance(python_paths.mark([{"models": [own]}])[0]["models"][0], python_paths.FromFile)

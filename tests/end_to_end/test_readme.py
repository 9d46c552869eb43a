"""The examples of README and docs run: Python, weights, and `make suite`'s job from a bare checkout."""

import contextlib
import io
import os
import re
import subprocess
import sys

import pytest
import torch
from pages import README, ROOT, python_blocks

from kdhelpers import artifacts, build_model, load_data


def test_both_ways_to_use_a_torchvision_students_weights_agree(root, monkeypatch):
    """`load_model` in one line, and plain PyTorch with two lines for the small stem, as in docs/weights.md."""
    name, network = "student_lm_resnet18_cifar100", build_model("resnet18", 100)
    path = artifacts.save_tensors(artifacts.weights_path(name), network.state_dict())
    facts = {
        "mean": [0.51, 0.49, 0.44],
        "std": [0.27, 0.26, 0.28],
        "sha256": artifacts.sha256(path),
        "model": "resnet18",
    }
    artifacts.save_json(path.with_suffix(".json"), facts | {"model_options": {}, "num_classes": 100})
    monkeypatch.chdir(root)
    names = {}
    one_line, plain = [block for block in python_blocks(ROOT / "docs/weights.md") if name in block]
    exec(one_line, names)
    student = names["student"]
    exec(plain, names)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(facts[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = student((images / 255 - mean) / std).argmax(1)
    assert torch.equal(names["predict"](images), expected)
    assert torch.equal(names["student"](images.float()), student(images.float()))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_readmes_python_prints_a_verdict_and_its_student_can_be_used(root, monkeypatch):
    """Its blocks in order: three trainings, the stored student through `load_model`, the same in plain PyTorch."""
    monkeypatch.chdir(root)
    first, with_infer, plain = python_blocks(ROOT / "README.md")
    (shown,) = re.findall(r"```text\n(.*)\n```", README)
    printed = re.sub(r"[-+]?\d+\.\d", "0.0", output_of(first)[0].splitlines()[-1])
    assert printed == re.sub(r"[-+]?\d+\.\d", "0.0", shown)
    record = artifacts.load_record("student_lm_resnet8_digits")
    top1_pct = record["metrics"]["test_top1_pct"]
    assert float(output_of(with_infer)[0]) == pytest.approx(top1_pct)
    names = output_of(plain)[1]
    test = load_data("digits").test
    assert 100 * (names["logits"].argmax(1) == test.labels).double().mean().item() == pytest.approx(top1_pct)
    raw = names["student"](test.images / 255)
    assert 100 * (raw.argmax(1) == test.labels).double().mean().item() < 0.5 * top1_pct  # the reason to normalise


def output_of(block: str) -> tuple[str, dict]:
    """What a block prints, and its names."""
    names, output = {}, io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(block, names)
    return output.getvalue(), names


@pytest.mark.slow
@pytest.mark.timeout(1800)  # minutes on an idle machine
def test_the_smoke_suite_replays_every_notebook(root):
    """What `make suite` does once the environment stands: every notebook, its records, plots and the results page."""
    done = subprocess.run(
        [sys.executable, "-m", "kdhelpers", "suite", "--profile", "smoke"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=1800,
        env=os.environ | {"KD_ROOT": str(root)},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = {record["name"]: record for record in artifacts.records()}
    assert {record["status"] for record in records.values()} == {"finished"}
    assert (
        records["teacher_resnet20_digits"]["metrics"]["test_top1_pct"] > 60
    )  # far above chance, even on two epochs' luck
    assert {f"student_{method}_resnet8_digits" for method in ("si", "ls", "lm", "dkd", "hints", "crd")} <= set(records)
    assert {"best_teacher_color_invariant_digits", "best_student_crd_color_invariant_digits"} <= set(records)
    assert not [name for name in records if "-" in name]  # no notebook trained again what another one had trained
    for name in records:
        assert artifacts.weights_path(name).is_file()
    pages = "".join(path.read_text() for path in (root / "plots" / "pages").glob("*.html"))
    assert (root / "plots" / "index.html").is_file()
    assert all(name in pages for name in records)
    for picture in ("student_lm_resnet8_digits_curves", "distillation_grad_cam_comparison_resnet8_digits"):
        assert (root / "plots" / f"{picture}.png").stat().st_size > 10_000
    executed = {path.stem for path in (root / "notebooks" / "executed").glob("*.ipynb")}
    assert executed >= {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}

"""What the README promises: its commands exist, and `make suite`'s job runs from a bare checkout."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdhelpers import artifacts, build_model
from kdhelpers.suite.profiles import parameters_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_two_commands_and_the_plain_ones_are_there():
    for command in (
        "make suite",
        "make test",
        "python -m venv",
        "pip install -r requirements.txt",
        "python -m kdhelpers suite",
    ):
        assert command in README


def test_every_command_that_it_names_is_accepted():
    """`python -m kdhelpers NAME --option` and `python -m benchmarks NAME`: names and options exist."""
    help_texts = {}
    for module, name, rest in set(re.findall(r"python -m (kdhelpers|benchmarks) ([a-z_]+)([^\n`|#]*)", README)):
        if module == "benchmarks":
            assert name == "all" or (ROOT / "benchmarks" / f"{name}.py").is_file(), name
            continue
        if name not in help_texts:
            help_texts[name] = subprocess.run(
                [sys.executable, "-m", "kdhelpers", name, "--help"],
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in help_texts[name], f"{name} {option}"


def test_every_parameter_that_it_passes_to_a_notebook_exists():
    lines = README.replace("\\\n", " ").splitlines()
    calls = [line for line in lines if re.search(r"papermill .*notebooks/\w+\.ipynb .*-p ", line)]
    assert calls
    for call in calls:
        notebook = re.search(r"notebooks/\w+\.ipynb", call).group()
        parameters = parameters_of(ROOT / notebook)
        for name in re.findall(r" -p (\w+) ", call):
            assert name in parameters, f"{notebook} -p {name}"


def test_files_that_it_links_to_exist():
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_its_two_ways_to_use_a_students_weights_agree(root, monkeypatch):
    """`load_model` in one line, and plain PyTorch with two lines for the small stem, as they stand in the README."""
    network = build_model("resnet18", 100)
    artifacts.save_tensors(artifacts.weights_path("student_hybrid_lambda_0.3_resnet18_cifar100"), network.state_dict())
    monkeypatch.chdir(root)
    blocks = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "hybrid_lambda_0.3" in block]
    images, logits = torch.rand(2, 3, 32, 32), []
    for block in blocks:
        names = {}
        exec(block, names)
        logits.append(names["student"].eval()(images))
    assert len(logits) == 2
    assert torch.equal(*logits)


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
    page = (root / "plots" / "index.html").read_text()
    assert all(name in page for name in records)
    for picture in ("student_lm_resnet8_digits_curves", "distillation_grad_cam_comparison_resnet8_digits"):
        assert (root / "plots" / f"{picture}.png").stat().st_size > 10_000
    executed = {path.stem for path in (root / "notebooks" / "executed").glob("*.ipynb")}
    assert executed >= {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}

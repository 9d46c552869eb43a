"""`train`: a Run by names, by a file, by a record; what it prints; the same code under torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kdhelpers import Run, artifacts
from kdhelpers.cli.commands import main
from kdhelpers.training.command import run_from

SHORT = ("epochs=1", "batch_size=256", "augmentation=none", "val_fraction=0.5", "precision=fp32")


def train(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", *arguments])


def test_a_run_is_trained_with_its_end_files_and_next_command(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root)
    result = train("role=teacher", *SHORT)
    assert result.exit_code == 0, result.output
    record = artifacts.load_record("teacher_resnet8_digits")
    assert f"teacher_resnet8_digits: test top-1 {record['metrics']['test_top1_pct']:.2f} %\n" in result.stdout
    files = [line.split()[1] for line in result.stdout.splitlines() if "/teacher_resnet8_digits." in line]
    assert len(files) == 3
    assert all((root / file).is_file() for file in files)
    assert "train dataset=digits model=resnet8 method=lm teacher=resnet8" in result.stdout
    assert "epoch 1/1" in result.stderr

    assert "loaded" in train("role=teacher", *SHORT).stdout
    assert "loaded" not in train("role=teacher", *SHORT, "--force").stdout

    assert train(*SHORT).exit_code == 0
    student = train("method=lm", "teacher=resnet8", "temperature=2", "--cache-teacher", *SHORT)
    assert "next:\n  python -m kdhelpers compare student_lm_resnet8_digits student_si_resnet8_digits" in student.stdout
    other = train("method=lm", "teacher=resnet8", "lr=0.1", *SHORT)  # without a control of its own
    assert "next:\n  python -m kdhelpers report --open" in other.stdout
    assert "test top-1" not in other.stderr
    assert list((root / "pth_models" / "outputs").iterdir())
    assert artifacts.load_record("student_lm_resnet8_digits")["run"]["hyperparameters"]["temperature"] == 2


def test_a_dry_run_prints_a_file_that_trains_the_same_run(root: Path):
    result = train("method=lm", "teacher=resnet20", "temperature=4", "schedule=multistep", "--dry-run")
    assert result.exit_code == 0, result.output
    path = root / "RUN.json"
    path.write_text(result.stdout)
    assert run_from([str(path)]) == Run(method="lm", teacher="resnet20", schedule="multistep")
    assert run_from([str(path), "temperature=2", "seed=3"]).hyperparameters["temperature"] == 2
    assert not (root / "json_results").exists()


def test_a_record_is_a_file_of_a_run(root: Path):
    path = root / "record.json"
    path.write_text(json.dumps({"name": "x", "run": Run(lr=0.1).model_dump()}))
    assert run_from([str(path)]) == Run(lr=0.1)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="does not hold the fields of a Run"):
        run_from([str(path)])


def test_the_module_takes_the_same_file(root: Path):
    path = root / "RUN.json"
    path.write_text(Run(**dict(word.split("=") for word in SHORT)).model_dump_json())
    command = [sys.executable, "-m", "kdhelpers.training", str(path)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout.startswith("student_si_resnet8_digits: test top-1 ")

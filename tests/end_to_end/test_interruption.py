"""Trainings that are interrupted, killed, broken, or shared by several processes."""

import os
import signal
import subprocess
import sys
from datetime import datetime

import pytest
import torch
from training_fixtures import QUICK, Recorder, same, weights

from kdhelpers import Run, artifacts, fit
from kdhelpers.methods import METHODS, Method
from kdhelpers.training import checkpoint
from kdhelpers.training.checkpoint import CHECKPOINT_SECONDS


def test_an_interrupted_run_goes_on_from_its_last_epoch_to_the_same_bits(root, data, monkeypatch):
    run = Run(**QUICK | {"epochs": 4}, optimizer="adamw")
    whole = fit(run, data)
    monkeypatch.setenv("KD_ROOT", str(root / "other"))
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=2))
    interrupted = artifacts.load_record(run.artifact_name)
    assert (interrupted["status"], artifacts.state(interrupted)) == ("failed", "interrupted")
    assert "resumed" not in interrupted
    interrupted["environment"]["started"] = "2020-01-01T00:00:00+00:00"
    artifacts.save_json(artifacts.record_path(run.artifact_name), interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=1))
    assert len(artifacts.load_record(run.artifact_name)["resumed"]) == 1
    progress = Recorder()
    resumed = fit(run, data, progress=progress)
    assert progress.done == 3
    assert len(resumed.record["resumed"]) == 2
    assert resumed.record["environment"]["started"] == "2020-01-01T00:00:00+00:00"
    assert all(datetime.fromisoformat(time).tzinfo for time in resumed.record["resumed"])
    assert artifacts.load_record(run.artifact_name) == resumed.record
    assert "resumed" not in whole.record
    assert progress.rows == 1
    assert same(weights(resumed), weights(whole))
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    assert "resumed" not in fit(run, data, force_retrain=True).record


KILLED = """
import sys
from kdhelpers import Run, fit
from kdhelpers.training import checkpoint
checkpoint.CHECKPOINT_SECONDS = float(sys.argv[1])
fit(Run(model="resnet8", epochs=40, batch_size=256, precision="fp32", lr=0.02, val_fraction=0.5, augmentation="none"))
"""


@pytest.mark.parametrize("seconds", [CHECKPOINT_SECONDS, 0])
def test_a_run_that_kill_9_ends_continues_from_its_last_checkpoint(root, seconds):
    """At 0 seconds one of the last epochs; at the usual interval at least the first."""
    run = Run(
        model="resnet8", epochs=40, batch_size=256, precision="fp32", lr=0.02, val_fraction=0.5, augmentation="none"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(seconds)],
        stderr=subprocess.PIPE,
        text=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    for _ in range(5):
        assert "epoch" in process.stderr.readline()
    os.kill(process.pid, signal.SIGKILL)
    done = 5 + process.communicate()[1].count("epoch")
    progress = Recorder(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        fit(run, progress=progress)
    assert (1 if seconds else 3) <= progress.done <= done + 1 < 40


def test_a_damaged_checkpoint_is_named(root, data):
    run = Run(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=1))
    checkpoint = next(artifacts.folder("checkpoints").glob("*.pt"))
    checkpoint.write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"\.pt: damaged or .*delete it and train"):
        fit(run, data)


def test_a_full_disk_stops_with_the_remedy_and_keeps_the_last_checkpoint(root, data, monkeypatch, capsys):
    real, calls, run = artifacts.save_tensors, [], Run(**QUICK | {"epochs": 3})

    def full_after_one(path, value):
        calls.append(path)
        if len(calls) > 2:  # the first checkpoint has two files
            raise OSError(f"cannot write {path}: No space left on device; free some space or set KD_ROOT")
        return real(path, value)

    with monkeypatch.context() as patched:
        patched.setattr(artifacts, "save_tensors", full_after_one)
        patched.setattr(checkpoint, "CHECKPOINT_SECONDS", 0)
        with pytest.raises(OSError, match="No space left on device"):
            fit(run, data)
    assert "continues from its last checkpoint, the epochs since then are lost" in capsys.readouterr().err
    progress = Recorder()
    assert fit(run, data, progress=progress).record["status"] == "finished"
    assert progress.done < 3  # the checkpoint of the first or of the second epoch, which a thread wrote


def test_two_processes_train_the_same_run_together(root):
    """torchrun: the global batch is shared, rank 0 writes, near a single process's result (BatchNorm differs)."""
    run = Run(model="resnet8", epochs=1, batch_size=128, precision="fp32", augmentation="none", val_fraction=0.5)
    artifacts.save_json(root / "run.json", run.model_dump())
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "kdhelpers.training",
    ]
    done = subprocess.run(
        [*command, str(root / "run.json")],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    together = artifacts.load_record("student_si_resnet8_digits")
    assert together["status"] == "finished"
    assert done.stdout.count("test top-1") == 1
    assert done.stderr.count("epoch 1/1") == 1  # the other rank is silent
    alone = fit(run, force_retrain=True)
    assert together["history"][0]["ce"] == pytest.approx(alone.history[0]["ce"], rel=0.15)
    assert len(artifacts.records()) == 1


class Broken(Method):
    """A term that becomes NaN in the second epoch."""

    needs_teacher = False

    def forward(self, student, teacher, batch, epoch):
        loss = student(batch.views[0]).logits.square().mean()
        return {"ce": loss, "extra": loss * (float("nan") if epoch == 2 else 0.0)}


def test_a_loss_that_is_not_finite_stops_with_epoch_and_term_and_keeps_the_checkpoint(root, data, monkeypatch):
    monkeypatch.setitem(METHODS, "si", Broken)
    with pytest.raises(FloatingPointError, match=r"epoch 2, step 1: loss term extra is nan; lower lr = 0.02"):
        fit(Run(**QUICK), data)
    record = artifacts.load_record("student_si_resnet8_digits")
    assert record["status"] == "failed"
    assert "loss term extra" in record["error"]
    assert artifacts.load_tensors(next(artifacts.folder("checkpoints").glob("*.pt")))["epochs_done"] == 1

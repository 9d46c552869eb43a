"""The loop and `fit`: what is trained, stored, resumed, refused."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F

from kdhelpers import Run, artifacts, fit, load_data, load_model
from kdhelpers.data import Data, Split
from kdhelpers.device import pick_device, resolve_precision
from kdhelpers.loop import Training
from kdhelpers.methods import METHODS, Method
from kdhelpers.progress import Progress

QUICK = {"model": "resnet8", "epochs": 2, "batch_size": 32, "precision": "fp32", "lr": 0.02}


@pytest.fixture(scope="module")
def data():
    """120 training images of the digits, 40 held out, 40 to test."""
    full = load_data("digits")

    def first(split, count):
        return Split(split.images[:count].contiguous(), split.labels[:count])

    return Data(
        "digits",
        first(full.train, 120),
        first(full.val, 40),
        first(full.test, 40),
        full.class_names,
        full.superclasses,
        full.superclass_names,
        full.mean,
        full.std,
    )


class Recorder(Progress):
    """Counts the calls, and can stop the training after an epoch."""

    def __init__(self, stop_after=None):
        self.steps, self.rows, self.done, self.stop_after = 0, 0, None, stop_after

    def begin(self, name, epochs, steps, done):
        self.done = done

    def step(self, step):
        self.steps += 1

    def epoch(self, history):
        self.rows += 1
        if self.rows == self.stop_after:
            raise KeyboardInterrupt


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def weights(trained):
    return artifacts.load_tensors(trained.weights_path)


def test_fit_equals_a_plain_loop_on_the_same_batches(root, data):
    """The one loop against the ten lines it stands for (Nesterov SGD, cosine per step, cross-entropy)."""
    run = Run(**QUICK, optimizer_options={"nesterov": True}, selection="last")
    trained = fit(run, data)
    training = Training(run, data, None, torch.device("cpu"), "fp32")
    network = training.network
    optimizer = torch.optim.SGD(network.parameters(), 0.02, 0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    for epoch in (1, 2):
        network.train()
        for batch in training.batches.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(network(batch.views[0]), batch.labels).backward()
            optimizer.step()
            schedule.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(weights(trained)[name], value, rtol=1e-4, atol=1e-5)


def test_the_record_says_everything(root, data):
    trained = fit(Run(**QUICK, role="teacher"), data)
    record = artifacts.load_record("teacher_resnet8_digits")
    assert record == trained.record
    assert record["status"] == "finished"
    assert Run(**record["run"]) == trained.run
    assert record["weights"]["sha256"] == artifacts.sha256(trained.weights_path)
    assert record["data"] | {"hash": ""} == {
        "name": "digits",
        "image_size": 32,
        "classes": 10,
        "hash": "",
        "train": 120,
        "val": 40,
        "test": 40,
    }
    assert set(record["history"][0]) == {
        "epoch",
        "loss",
        "ce",
        "train_top1_pct",
        "images_per_second",
        "val_top1_pct",
        "val_nll",
        "lr",
        "seconds",
        "peak_memory_mib",
    }
    best = max(record["history"], key=lambda row: row["val_top1_pct"])
    assert record["selection"] == {"rule": "best_val", "epoch": best["epoch"]}
    assert record["metrics"]["val_top1_pct"] == best["val_top1_pct"]
    assert record["environment"]["precision"] == "fp32"
    assert not list(artifacts.folder("checkpoints").glob("*.pt"))


def test_weights_are_plain_contiguous_and_load_into_the_bare_network(root, data):
    trained = fit(Run(**QUICK), data)
    state = weights(trained)
    assert list(state) == list(trained.model.state_dict())
    assert all(value.is_contiguous() and value.device.type == "cpu" for value in state.values())
    assert same(load_model(trained.name).state_dict(), state)


def test_a_finished_run_is_loaded_not_trained(root, data):
    first, again = fit(Run(**QUICK), data), Recorder()
    second = fit(Run(**QUICK, name="another_name"), data, progress=again)
    assert second.cached
    assert second.name == first.name
    assert again.steps == 0
    assert same(second.model.state_dict(), first.model.state_dict())


def test_force_retrain_trains_again_to_the_same_weights(root, data):
    first, again = fit(Run(**QUICK), data), Recorder()
    before = weights(first)
    second = fit(Run(**QUICK), data, force_retrain=True, progress=again)
    assert not second.cached
    assert again.steps == 8
    assert same(weights(second), before)


def test_other_settings_or_images_never_overwrite(root, data):
    first = fit(Run(**QUICK), data)
    second = fit(Run(**QUICK | {"lr": 0.01}), data)
    fewer = Data(
        "digits",
        Split(data.train.images[:100], data.train.labels[:100]),
        data.val,
        data.test,
        data.class_names,
        data.superclasses,
        data.superclass_names,
        data.mean,
        data.std,
    )
    third = fit(Run(**QUICK), fewer)
    assert len({first.name, second.name, third.name}) == 3
    assert same(weights(first), first.model.state_dict())


def test_weights_changed_behind_the_records_back_are_not_used(root, data, capsys):
    first = fit(Run(**QUICK), data)
    expected = weights(first)
    artifacts.save_tensors(first.weights_path, {"fc.bias": torch.zeros(10)})
    second = fit(Run(**QUICK), data)
    assert not second.cached
    assert "training again" in capsys.readouterr().err
    assert same(weights(second), expected)


def test_an_interrupted_run_goes_on_from_its_last_epoch_to_the_same_bits(root, data, monkeypatch):
    run = Run(**QUICK | {"epochs": 4}, optimizer="adamw")
    whole = fit(run, data)
    monkeypatch.setenv("KD_ROOT", str(root / "other"))
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=2))
    assert artifacts.load_record(run.artifact_name)["status"] == "failed"
    progress = Recorder()
    resumed = fit(run, data, progress=progress)
    assert progress.done == 2
    assert progress.rows == 2
    assert same(weights(resumed), weights(whole))
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]


KILLED = """
import sys
from kdhelpers import Run, fit
fit(Run(model="resnet8", epochs=40, batch_size=256, precision="fp32", lr=0.02, val_fraction=0.5, augmentation="none"))
"""


def test_kill_9_while_training_loses_at_most_an_epoch(root):
    run = Run(
        model="resnet8", epochs=40, batch_size=256, precision="fp32", lr=0.02, val_fraction=0.5, augmentation="none"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    deadline = time.monotonic() + 120
    while not list(root.glob("pth_models/checkpoints/*.pt")):
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    progress = Recorder(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        fit(run, progress=progress)
    assert 1 <= progress.done < 40


def test_a_damaged_checkpoint_is_named(root, data):
    run = Run(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=1))
    checkpoint = next(artifacts.folder("checkpoints").glob("*.pt"))
    checkpoint.write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"\.pt: damaged or .*delete it and train"):
        fit(run, data)


def test_the_student_learns_from_a_teacher_and_the_record_names_it(root, data):
    teacher = fit(Run(**QUICK, role="teacher"), data)
    trained = fit(Run(**QUICK, method="lm", teacher="resnet8", hyperparameters={"temperature": 2}), data)
    assert trained.name == "student_lm_resnet8_digits"
    assert set(trained.history[0]) >= {"ce", "kd"}
    assert trained.history[0]["loss"] == pytest.approx(trained.history[0]["ce"] + trained.history[0]["kd"])
    assert trained.record["teacher"] == {
        "name": teacher.name,
        "sha256": artifacts.sha256(teacher.weights_path),
        "model": "resnet8",
        "test_top1_pct": teacher.metrics["test_top1_pct"],
    }


def test_a_retrained_teacher_makes_a_new_student_beside_the_old(root, data):
    fit(Run(**QUICK, role="teacher"), data)
    student = Run(**QUICK, method="lm", teacher="resnet8")
    first = fit(student, data)
    path = artifacts.weights_path("teacher_resnet8_digits")
    state = artifacts.load_tensors(path)
    state["fc.bias"] += 1
    artifacts.save_tensors(path, state)
    facts = artifacts.load_json(path.with_suffix(".json"))
    artifacts.save_json(path.with_suffix(".json"), facts | {"sha256": artifacts.sha256(path)})
    second = fit(student, data)
    assert second.name.startswith(f"{first.name}-")
    assert first.weights_path.exists()


def test_a_missing_teacher_stops_before_any_training(root, data):
    with pytest.raises(FileNotFoundError, match="teacher_resnet20_digits has not been trained yet.*01_teacher"):
        fit(Run(**QUICK, method="lm", teacher="resnet20"), data)
    assert not artifacts.records()


def test_a_teacher_of_other_classes_is_refused(root, data):
    teacher = fit(Run(**QUICK, role="teacher"), data)
    facts = artifacts.load_json(teacher.weights_path.with_suffix(".json"))
    two = Data(
        "digits",
        *(Split(s.images, s.labels % 2) for s in (data.train, data.val, data.test)),
        ("even", "odd"),
        None,
        None,
        data.mean,
        data.std,
    )
    assert facts["num_classes"] == 10
    with pytest.raises(ValueError, match="knows 10 classes, digits has 2"):
        fit(Run(**QUICK, method="lm", teacher="resnet8"), two)


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


class ManyParts(Method):
    """Uses all that the contract offers: views, a projector, a bank, a slow student, a first stage."""

    needs_teacher = False
    views = 3

    def build(self, context):
        self.projector = torch.nn.Linear(context.student_outputs.embedding.shape[1], 4)
        self.register_buffer("bank", torch.zeros(len(context.labels), 4))

    def forward(self, student, teacher, batch, epoch):
        if epoch == 1:
            return {"hint": student(batch.views[2], stop_at="layer2").maps["layer2"].square().mean()}
        projected = self.projector(student(batch.views[1]).embedding)
        self.bank[batch.index] = projected.detach().float()
        return {
            "ce": projected.float().square().mean()
            + F.cross_entropy(student(batch.views[0]).logits.float(), batch.labels)
        }


def test_a_method_with_views_bank_projector_and_two_stages_fits_the_contract(root, data, monkeypatch):
    monkeypatch.setitem(METHODS, "si", ManyParts)
    run = Run(**QUICK)
    training = Training(run, data, None, torch.device("cpu"), "fp32")
    start = {name: value.clone() for name, value in training.network.state_dict().items()}
    training.epoch(Progress())
    now = training.network.state_dict()
    upper = [name for name in start if name.startswith(("layer3", "fc"))]
    assert all(torch.equal(start[name], now[name]) for name in upper)
    assert not torch.equal(start["layer2.0.conv1.weight"], now["layer2.0.conv1.weight"])
    projector = training.method.projector.weight.clone()
    training.epoch(Progress())
    assert not torch.equal(projector, training.method.projector.weight)
    assert (training.method.bank.norm(dim=1) > 0).all()
    assert not [name for name in training.network.state_dict() if "projector" in name]
    copy = Training(run, data, None, torch.device("cpu"), "fp32")
    copy.restore(training.state())
    assert torch.equal(copy.method.bank, training.method.bank)


def test_two_methods_with_one_seed_start_alike_and_see_the_same_views(root, data):
    fit(Run(**QUICK, role="teacher"), data)
    from kdhelpers.teachers import load_teacher

    teacher = load_teacher("teacher_resnet8_digits")
    alone = Training(Run(**QUICK), data, None, torch.device("cpu"), "fp32")
    taught = Training(Run(**QUICK, method="lm", teacher="resnet8"), data, teacher, torch.device("cpu"), "fp32")
    assert same(alone.network.state_dict(), taught.network.state_dict())
    for a, b in zip(alone.batches.epoch(2), taught.batches.epoch(2), strict=True):
        assert torch.equal(a.views[0], b.views[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_precision_learns(root, data, precision):
    trained = fit(Run(**QUICK | {"precision": precision, "epochs": 3, "lr": 0.05}), data)
    assert trained.history[-1]["ce"] < trained.history[0]["ce"]
    assert trained.record["environment"]["precision"] == precision


def test_precision_auto_is_one_that_the_device_has():
    assert resolve_precision("auto", torch.device("cpu")) in ("fp32", "bf16")
    assert resolve_precision("fp16", torch.device("cpu")) == "fp16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="torch sees no GPU here"):
        pick_device("cuda")


def test_tensorboard_scalars_on_request(root, data):
    trained = fit(Run(**QUICK), data, tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = [EventAccumulator(str(path)) for path in (root / "runs" / trained.name).glob("events*")]
    losses = {}
    for one in events:
        one.Reload()
        losses |= {event.step: event.value for event in one.Scalars("loss")}
    assert losses == pytest.approx({row["epoch"]: row["loss"] for row in trained.history})


def test_a_full_disk_stops_with_the_remedy_and_loses_nothing(root, data, monkeypatch):
    real, calls = artifacts.save_tensors, []

    def full_after_one(path, value):
        calls.append(path)
        if len(calls) > 1:
            raise OSError(f"cannot write {path}: No space left on device; free some space or set KD_ROOT")
        return real(path, value)

    with monkeypatch.context() as patched:
        patched.setattr(artifacts, "save_tensors", full_after_one)
        with pytest.raises(OSError, match="No space left on device"):
            fit(Run(**QUICK), data)
    progress = Recorder()
    assert fit(Run(**QUICK), data, progress=progress).record["status"] == "finished"
    assert progress.done == 1


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
        "kdhelpers.train",
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
    alone = fit(run, force_retrain=True)
    assert together["history"][0]["ce"] == pytest.approx(alone.history[0]["ce"], rel=0.15)
    assert len(artifacts.records()) == 1


def test_an_ambiguous_teacher_is_refused_with_the_choices(root, data):
    """A student must not learn from an older teacher of the same name without a word."""
    fit(Run(**QUICK, role="teacher"), data)
    second = fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)
    with pytest.raises(ValueError, match=r"there are several: teacher_resnet8_digits.pth \(2 epochs, .*\(1 epochs"):
        fit(Run(**QUICK, method="lm", teacher="resnet8"), data)
    trained = fit(Run(**QUICK, method="lm", teacher=second.name), data)
    assert trained.record["teacher"]["name"] == second.name
    explicit = fit(Run(**QUICK, method="lm", teacher="teacher_resnet8_digits.pth"), data)
    assert explicit.record["teacher"]["name"] == "teacher_resnet8_digits"


def test_another_runs_files_under_this_runs_name_are_not_returned(root, data):
    first, other = fit(Run(**QUICK), data), fit(Run(**QUICK, seed=1), data)
    expected = weights(first)
    for suffix in (".pth", ".json"):
        source = other.weights_path.with_suffix(suffix)
        artifacts.write_atomic(first.weights_path.with_suffix(suffix), source.read_bytes())
    again = fit(Run(**QUICK), data)
    assert not again.cached
    assert again.name != first.name  # what lies there is kept
    assert same(weights(again), expected)


def test_data_of_another_name_or_size_is_refused(root, data):
    with pytest.raises(ValueError, match="data: digits at 32 px was given, the run is of dataset = cifar100"):
        fit(Run(**QUICK, dataset="cifar100"), data)
    with pytest.raises(ValueError, match="image_size = 64"):
        fit(Run(**QUICK, image_size=64), data)


def test_a_share_that_holds_out_no_image_is_refused(root):
    with pytest.raises(ValueError, match="val_fraction = 0.0001: leaves no image of digits held out"):
        fit(Run(**QUICK, val_fraction=1e-4))


def test_without_held_out_images_a_network_that_broke_is_not_stored(root):
    run = Run(**QUICK | {"lr": 100, "weight_decay": 100, "epochs": 1}, val_fraction=0, selection="last")
    with pytest.raises(FloatingPointError, match="lower lr = 100"):
        fit(run)
    assert not artifacts.weights_path(run.artifact_name).exists()
    assert artifacts.load_record(run.artifact_name)["status"] == "failed"


def test_a_checkpoint_of_another_precision_is_refused(root, data):
    run = Run(**QUICK | {"precision": "auto"})
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=1))
    assert "interrupted" in artifacts.load_record(run.artifact_name)["error"]
    checkpoint = next(artifacts.folder("checkpoints").glob("*.pt"))
    artifacts.save_tensors(checkpoint, artifacts.load_tensors(checkpoint) | {"precision": "fp16"})
    with pytest.raises(ValueError, match="this checkpoint is fp16, precision here is .*set precision"):
        fit(run, data)


class Stacked(Method):
    """Both views in one forward, as contrastive methods do, and a slow student made from the context."""

    needs_teacher = False
    views = 2

    def build(self, context):
        self.slow = context.copy_student()

    def forward(self, student, teacher, batch, epoch):
        assert not any(parameter.requires_grad for parameter in self.slow.parameters())
        embedding = student(torch.cat(batch.views)).embedding.float()
        with torch.no_grad():
            target = self.slow(batch.views[0]).embedding.float()
        return {"pull": (embedding[: len(target)] - target).square().mean() + embedding.square().mean()}


def test_views_in_one_forward_and_a_slow_student(root, data, monkeypatch):
    monkeypatch.setitem(METHODS, "si", Stacked)
    trained = fit(Run(**QUICK), data)
    assert trained.history[-1]["pull"] < trained.history[0]["pull"]
    assert trained.history[0]["train_top1_pct"] == 0

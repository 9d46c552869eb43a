"""The checkpoint: when it is written, by whom, that its two files agree, and what other devices and versions left."""

import copy
import threading

import pytest
import torch
from training_fixtures import QUICK, Recorder, same, train_one_epoch, training_of

from kdhelpers import Run, artifacts, fit, fit_sweep
from kdhelpers.methods import METHODS
from kdhelpers.training import checkpoint as module
from kdhelpers.training import inputs
from kdhelpers.training.checkpoint import Checkpoint, best_paths, rename_checkpoint

IDENTITY = "a" * 64


@pytest.fixture
def checkpoint(root):
    made = Checkpoint(IDENTITY)
    yield made
    made.close()


@pytest.fixture
def every_epoch(monkeypatch):
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0)


def state(epoch, best=1):
    """As of a training that has done so many epochs; the values of its tensors are the epochs."""
    selected = {"epoch": best, "val_top1_pct": 50.0, "weights": {"w": torch.full((2,), float(best))}}
    network = {"w": torch.full((2,), float(epoch))}
    parts = {"method": {}, "optimizer": {}, "scaler": {}, "precision": "fp32"}
    return parts | {"epochs_done": epoch, "history": [{"epoch": epoch}], "best": selected, "network": network}


def stored(path):
    return artifacts.load_tensors(path)["epochs_done"] if path.is_file() else None


class Disk:
    """In place of `save_tensors`: notes the files, waits or fails on demand."""

    def __init__(self, monkeypatch):
        self.names, self.real, self.fault, self.go, self.at_work = [], artifacts.save_tensors, {}, threading.Event(), 0
        self.go.set()
        monkeypatch.setattr(artifacts, "save_tensors", self)

    def __call__(self, path, value):
        self.at_work += 1
        assert self.at_work == 1, "two writes at the same time"
        assert self.go.wait(10)
        self.at_work -= 1
        if path.suffix in self.fault:
            raise self.fault[path.suffix]
        self.names.append(path.name.removeprefix(IDENTITY[:16]))
        return self.real(path, value)


def test_it_is_written_at_first_and_then_when_the_last_one_is_old_enough(checkpoint, monkeypatch):
    clock, disk = [100.0], Disk(monkeypatch)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    for epoch, seconds in enumerate((0, 5, 14.9, 0.1, 5), 1):
        clock[0] += seconds
        checkpoint.keep(state(epoch, best=1))
        if checkpoint._writing:
            checkpoint._writing.result()
        assert stored(checkpoint.path) == (4 if epoch >= 4 else 1)
    checkpoint.keep(state(6), write=True)
    checkpoint.close()
    assert stored(checkpoint.path) == 6
    assert disk.names == [".best-1.pth", ".pt", ".pt", ".pt"]


def test_the_loop_goes_on_while_one_thread_writes_and_the_last_epoch_is_written_at_the_end(
    checkpoint, every_epoch, monkeypatch
):
    disk, live = Disk(monkeypatch), state(1)
    disk.go.clear()
    checkpoint.keep(live)
    live["network"]["w"].fill_(9)  # the next epoch trains
    live["history"].append({"epoch": 2})
    checkpoint.keep(state(2))  # is not written: the first write is not done
    checkpoint.keep(state(3))
    assert stored(checkpoint.path) is None
    disk.go.set()
    checkpoint._writing.result()
    first = artifacts.load_tensors(checkpoint.path)
    assert first["network"]["w"].tolist() == [1, 1]
    assert first["history"] == [{"epoch": 1}]
    checkpoint.save_last()
    assert stored(checkpoint.path) == 3
    before = list(disk.names)
    checkpoint.save_last()  # it is on the disk
    assert disk.names == before


def test_its_thread_ends_with_it(checkpoint):
    before = set(threading.enumerate())
    checkpoint.keep(state(1))
    assert len(set(threading.enumerate()) - before) == 1
    checkpoint.close()
    assert not set(threading.enumerate()) - before
    assert stored(checkpoint.path) == 1


def test_an_error_of_the_thread_is_raised_at_the_next_epoch_and_the_last_epoch_is_tried_again(
    checkpoint, every_epoch, monkeypatch
):
    disk = Disk(monkeypatch)
    disk.fault[".pt"] = OSError("cannot write x.pt: No space left on device; free some space")
    checkpoint.keep(state(1))
    checkpoint._thread.submit(int).result()  # it is done
    with pytest.raises(OSError, match="No space left on device; free some space"):
        checkpoint.keep(state(2))
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save_last()
    disk.fault.clear()
    checkpoint.save_last()
    assert stored(checkpoint.path) == 2


def test_the_selected_weights_are_written_if_they_changed_and_before_the_state_that_names_them(
    checkpoint, every_epoch, monkeypatch
):
    disk = Disk(monkeypatch)
    for epoch, best in ((1, 1), (2, 1), (3, 3)):
        checkpoint.keep(state(epoch, best), write=True)
    checkpoint.close()
    assert disk.names == [".best-1.pth", ".pt", ".pt", ".best-3.pth", ".pt"]
    assert [path.name for path in best_paths(checkpoint.path)] == [f"{IDENTITY[:16]}.best-3.pth"]
    assert "weights" not in artifacts.load_tensors(checkpoint.path)["best"]
    again = Checkpoint(IDENTITY)
    restored = again.load("cpu")
    assert (restored["best"]["epoch"], restored["best"]["val_top1_pct"]) == (3, 50.0)
    assert restored["best"]["weights"]["w"].tolist() == [3, 3]
    again.keep(state(4, 3), write=True)
    again.close()
    assert disk.names[5:] == [".pt"]  # they are on the disk already


def test_a_crash_between_the_two_files_leaves_the_earlier_pair(checkpoint, every_epoch, monkeypatch):
    checkpoint.keep(state(1, 1), write=True)
    checkpoint.save_last()
    disk = Disk(monkeypatch)
    disk.fault[".pt"] = OSError("killed")
    checkpoint.keep(state(2, 2))
    checkpoint.close()
    assert disk.names == [".best-2.pth"]
    again = Checkpoint(IDENTITY)
    restored = again.load("cpu")
    assert (restored["epochs_done"], restored["best"]["weights"]["w"].tolist()) == (1, [1, 1])
    disk.fault.clear()
    again.keep(state(2, 2), write=True)
    again.close()
    assert Checkpoint(IDENTITY).load("cpu")["best"]["weights"]["w"].tolist() == [2, 2]
    assert len(best_paths(checkpoint.path)) == 1


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"rubbish")])
def test_lost_selected_weights_are_named_with_the_remedy(checkpoint, damage):
    checkpoint.keep(state(1), write=True)
    checkpoint.close()
    damage(best_paths(checkpoint.path)[0])
    with pytest.raises(ValueError, match=r"best-1.pth: the selected weights of a{16}.pt are .*; .*delete both files"):
        Checkpoint(IDENTITY).load("cpu")


def test_no_file_remains_and_other_runs_keep_theirs(checkpoint):
    checkpoint.keep(state(1), write=True)
    checkpoint.close()
    other = Checkpoint("b" * 64)
    other.keep(state(1), write=True)
    other.close()
    for name in (checkpoint.path.name, best_paths(checkpoint.path)[0].name):
        (checkpoint.path.parent / f".{name}.1.2.tmp").write_bytes(b"half")
    checkpoint.delete()
    assert {path.name for path in checkpoint.path.parent.iterdir()} == {f"{'b' * 16}.pt", f"{'b' * 16}.best-1.pth"}


def test_a_renamed_checkpoint_finds_its_selected_weights(checkpoint):
    checkpoint.keep(state(2, 1), write=True)
    checkpoint.close()
    present = Checkpoint("b" * 64)
    rename_checkpoint(checkpoint.path, present.path)
    assert present.load("cpu")["best"]["weights"]["w"].tolist() == [1, 1]
    assert len(list(present.path.parent.iterdir())) == 2


def test_without_selected_weights_there_is_one_file(checkpoint):
    without = state(1) | {"best": None}
    checkpoint.keep(without, write=True)
    checkpoint.keep(state(2) | {"best": {"epoch": 2, "val_top1_pct": None, "weights": None}}, write=True)
    checkpoint.close()
    assert [path.name for path in checkpoint.path.parent.iterdir()] == [checkpoint.path.name]
    assert Checkpoint(IDENTITY).load("cpu")["best"]["weights"] is None


def interrupt(run, data, after=1, **options):
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=after), **options)
    return next(artifacts.folder("checkpoints").glob("*.pt"))


def test_a_checkpoint_of_an_earlier_version_with_its_selected_weights_inside_is_continued(root, data, monkeypatch):
    run = Run(**QUICK | {"epochs": 3})
    path = interrupt(run, data, after=2)
    (best,) = best_paths(path)
    whole = artifacts.load_tensors(path)
    whole["best"]["weights"] = artifacts.load_tensors(best)
    artifacts.save_tensors(path, whole)
    best.unlink()
    progress = Recorder()
    resumed = fit(run, data, progress=progress)
    assert progress.done == 2
    monkeypatch.setenv("KD_ROOT", str(root / "other"))
    assert same(fit(run, data).model.state_dict(), resumed.model.state_dict())


def test_an_interruption_within_an_epoch_keeps_the_finished_epochs(root, data, monkeypatch):
    """At the usual interval: the first epoch alone is on the disk before it."""

    class InEpoch(Recorder):
        def step(self, step):
            super().step(step)
            if self.steps == 3 * 4 + 2:  # in the fourth epoch
                raise KeyboardInterrupt

    run = Run(**QUICK | {"epochs": 5}, optimizer="adamw")
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=InEpoch())
    assert "from its last finished epoch" in artifacts.load_record(run.artifact_name)["error"]
    progress = Recorder()
    resumed = fit(run, data, progress=progress)
    assert progress.done == 3
    assert not list(artifacts.folder("checkpoints").glob("*.p*"))
    monkeypatch.setenv("KD_ROOT", str(root / "other"))
    assert same(fit(run, data).model.state_dict(), resumed.model.state_dict())


def test_the_end_of_a_first_stage_and_the_last_epoch_are_written_at_once(root, data, monkeypatch):
    asked, keep = [], Checkpoint.keep

    def noted(self, state, write=False):
        asked.append((state["epochs_done"], write))
        keep(self, state, write)

    monkeypatch.setattr(Checkpoint, "keep", noted)
    monkeypatch.setattr(METHODS["si"], "stage_epochs", 2)
    fit(Run(**QUICK | {"epochs": 4}), data)
    assert asked == [(1, False), (2, True), (3, False), (4, True)]


def test_a_run_that_is_interrupted_in_its_final_test_does_not_train_again(root, data, monkeypatch):
    from kdhelpers.training import job

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(job, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(Run(**QUICK), data)
    progress = Recorder()
    assert fit(Run(**QUICK), data, progress=progress).record["status"] == "finished"
    assert progress.steps == 0


def test_a_run_whose_record_cannot_be_written_has_failed(root, data, monkeypatch):
    """The disk is full when the weights are written and their sidecar is not."""
    save = artifacts.save_json

    def full(path, value):
        if path.parent == artifacts.folder("weights"):
            raise OSError("No space left on device")
        return save(path, value)

    with monkeypatch.context() as patched:
        patched.setattr(artifacts, "save_json", full)
        with pytest.raises(OSError, match="No space left"):
            fit(Run(**QUICK), data)
    stored = artifacts.load_record(Run(**QUICK).artifact_name)
    assert (stored["status"], stored["error"]) == ("failed", "OSError: No space left on device")
    progress = Recorder()
    assert fit(Run(**QUICK), data, progress=progress).record["status"] == "finished"
    assert progress.steps == 0


def test_a_failing_device_leaves_the_last_checkpoint_and_says_so(root, data, monkeypatch, capsys):
    monkeypatch.setattr(Checkpoint, "save_last", lambda self: (_ for _ in ()).throw(RuntimeError("device lost")))
    interrupt(Run(**QUICK), data)
    assert "continues from its last checkpoint" in artifacts.load_record("student_si_resnet8_digits")["error"]
    assert "the epochs since then are lost: device lost" in capsys.readouterr().err


def precisions(monkeypatch, auto):
    monkeypatch.setattr(inputs, "resolve_precision", lambda precision, _: auto if precision == "auto" else precision)


AUTO = Run(**QUICK | {"precision": "auto", "epochs": 3})


def test_precision_auto_is_that_of_the_checkpoint_if_the_device_has_it(root, data, monkeypatch):
    precisions(monkeypatch, "fp32")
    interrupt(AUTO, data)
    precisions(monkeypatch, "bf16")  # another machine
    resumed = fit(AUTO, data)
    assert resumed.record["environment"]["precision"] == "fp32"
    assert resumed.record["notes"] == []
    again = fit(AUTO, data, force_retrain=True)
    assert again.record["environment"]["precision"] == "bf16"
    precisions(monkeypatch, "fp32")
    assert same(fit(AUTO, data, force_retrain=True).model.state_dict(), resumed.model.state_dict())


@pytest.mark.parametrize(("before", "now"), [("bf16", "fp32"), ("fp16", "fp32"), ("bf16", "fp16")])
def test_a_device_without_the_precision_of_the_checkpoint_goes_on_in_its_own_and_notes_it(
    root, data, monkeypatch, before, now
):
    fit(Run(**QUICK, role="teacher"), data)
    run = AUTO.model_copy(update={"method": "lm", "teacher": "resnet8"})
    precisions(monkeypatch, before)
    interrupt(run, data)
    precisions(monkeypatch, now)
    interrupt(run, data)
    resumed = fit(run, data)
    assert resumed.record["environment"]["precision"] == now
    assert resumed.record["notes"] == [f"precision: {before} up to epoch 1, then {now}"]
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3]


def test_a_gpu_with_bf16_continues_in_the_fp16_of_another(data, monkeypatch):
    monkeypatch.setattr(inputs, "stored_precision", lambda identity: "fp16")
    for kind, precision, expected in (("cuda", "bf16", "fp16"), ("cpu", "bf16", "bf16"), ("cuda", "fp32", "fp32")):
        students = [inputs.Inputs(AUTO, data, torch.device(kind), precision)]
        assert inputs._precision_of_checkpoints(students) == expected


def test_students_of_a_sweep_whose_checkpoints_disagree_go_on_in_the_precision_of_the_device(root, data, monkeypatch):
    other = AUTO.model_copy(update={"lr": 0.01})
    for run, precision in ((AUTO, "bf16"), (other, "fp32")):
        precisions(monkeypatch, precision)
        interrupt(run, data)
    sweep = fit_sweep([AUTO, other], data)
    assert [trained.record["environment"]["precision"] for trained in sweep] == ["fp32", "fp32"]
    assert [len(trained.record["notes"]) for trained in sweep] == [1, 0]


def test_an_optimiser_keeps_its_own_options_when_it_is_restored(root, data):
    """A checkpoint of a GPU has capturable = True and the learning rate as a tensor."""
    run = Run(**QUICK, optimizer="adamw")
    first, second = training_of(run, data), training_of(run, data)
    train_one_epoch(first)
    stored = copy.deepcopy(first.state())  # as through a file
    for group in stored["optimizer"]["param_groups"]:
        group.update(capturable=False, fused=False, lr=torch.tensor(7.0))
    (own,) = second.optimizer.param_groups
    rate = own["lr"] = torch.tensor(0.5)
    second.restore(stored)
    (group,) = second.optimizer.param_groups
    assert group["lr"] is rate
    assert (group["capturable"], group["fused"]) == (True, True)
    parameters = first.optimizer.param_groups[0]["params"], group["params"]
    for one, other in zip(*parameters, strict=True):
        assert torch.equal(first.optimizer.state[one]["exp_avg"], second.optimizer.state[other]["exp_avg"])
    group["lr"] = 0.5  # a rate that is a tensor is float32, and rounds
    train_one_epoch(first)
    train_one_epoch(second)
    assert same(first.network.state_dict(), second.network.state_dict())


def test_selected_weights_are_a_copy(root, data):
    training = training_of(Run(**QUICK), data)
    train_one_epoch(training)
    selected = {name: value.clone() for name, value in training.best["weights"].items()}
    assert same(selected, training.network.state_dict())
    for parameter in training.network.parameters():
        parameter.data.zero_()
    assert same(selected, training.best["weights"])


def test_a_training_has_one_tensorboard_file(root, data):
    pytest.importorskip("tensorboard")
    fit(Run(**QUICK | {"epochs": 3}), data, tensorboard=True)
    assert len(list(root.glob("runs/*/*tfevents*"))) == 1

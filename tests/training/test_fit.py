"""`fit`: what is trained, stored, loaded again, refused."""

import re

import pytest
import torch
from training_fixtures import QUICK, Recorder, same, weights

from kdhelpers import Run, artifacts, fit, load_model
from kdhelpers.data import Data, Split
from kdhelpers.training import loop


def test_the_record_says_everything(root, data):
    trained = fit(Run(**QUICK, role="teacher"), data)
    record = artifacts.load_record("teacher_resnet8_digits")
    assert record == trained.record
    assert record["status"] == "finished"
    assert Run(**record["run"]) == trained.run
    assert record["weights"]["sha256"] == artifacts.sha256(trained.weights_path)
    assert record["data"] | {"hash": ""} == {
        "name": "digits",
        "image_size": 16,
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
    assert not list(artifacts.folder("checkpoints").glob("*.p*"))


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
        "notes": [],
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
    with pytest.raises(
        FileNotFoundError,
        match="teacher_resnet20_digits: not trained yet.*train dataset=digits model=[a-z0-9]* role=teacher",
    ):
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
    with pytest.raises(ValueError, match="has 10 classes, digits has 2"):
        fit(Run(**QUICK, method="lm", teacher="resnet8"), two)


def test_a_training_is_without_tf32(root, data, monkeypatch):
    seen = []

    def train(*_, **options):
        seen.append(torch.backends.cudnn.allow_tf32)
        raise ZeroDivisionError

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(ZeroDivisionError):
        fit(Run(**QUICK), data)
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32


def test_tensorboard_scalars_on_request(root, data):
    trained = fit(Run(**QUICK), data, tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = [EventAccumulator(str(path)) for path in (root / "runs" / trained.name).glob("events*")]
    losses = {}
    for one in events:
        one.Reload()
        losses |= {event.step: event.value for event in one.Scalars("loss")}
    assert losses == pytest.approx({row["epoch"]: row["loss"] for row in trained.history})


def test_an_ambiguous_teacher_is_refused_with_the_choices(root, data):
    """A student must not learn from an older teacher of the same name without a word."""
    fit(Run(**QUICK, role="teacher"), data)
    second = fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)
    with pytest.raises(ValueError, match=r"there are 2: teacher_resnet8_digits \(2 epochs, .*\(1 epochs"):
        fit(Run(**QUICK, method="lm", teacher="resnet8"), data)
    trained = fit(Run(**QUICK, method="lm", teacher=second.name), data)
    assert trained.record["teacher"]["name"] == second.name
    explicit = fit(Run(**QUICK, method="lm", teacher="teacher_resnet8_digits"), data)
    assert explicit.record["teacher"]["name"] == "teacher_resnet8_digits"


def test_one_training_is_found_however_its_teacher_is_spelled(root, data):
    teacher = fit(Run(**QUICK, role="teacher"), data)
    first = fit(Run(**QUICK, method="lm", teacher="resnet8"), data)
    for spelled in (teacher.name, str(teacher.weights_path)):
        again = fit(Run(**QUICK, method="lm", teacher=spelled), data)
        assert again.cached
        assert again.name == first.name
        assert torch.equal(again.load_teacher().fc.weight, teacher.model.fc.weight)
    with pytest.raises(ValueError, match="method si has no teacher"):
        teacher.load_teacher()


def test_a_fine_tuned_teacher_has_a_name_of_its_own_and_can_be_repeated(root, data):
    fit(Run(**QUICK, role="teacher"), data)
    tuned = Run(**QUICK, role="teacher", start_from="resnet8")
    assert fit(tuned, data).name == "teacher_resnet8_digits_from_resnet8"
    assert fit(tuned, data).cached
    fit(Run(**QUICK, method="lm", teacher="resnet8"), data)


def test_a_namesake_of_a_named_teacher_is_told_of(root, data, capsys):
    for epochs in (2, 1):
        fit(Run(**QUICK | {"epochs": epochs}, role="teacher", name="mine"), data)
    fit(Run(**QUICK, method="lm", teacher="mine"), data)
    assert re.search(r"teacher = mine: the first of mine \(2 epochs.*mine-\w{8} \(1 epochs", capsys.readouterr().err)


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


def test_fine_tuning_goes_on_from_the_stored_weights_and_follows_their_content(root, data):
    first = fit(Run(**QUICK), data)
    standing = QUICK | {"epochs": 1, "lr": 1e-12, "weight_decay": 0}
    tuned = fit(Run(**standing, start_from=first.name, name="tuned"), data)
    learnt = [name for name in weights(first) if "running" not in name and "num_batches" not in name]
    for name in learnt:
        torch.testing.assert_close(weights(tuned)[name], weights(first)[name])
    assert tuned.record["start"] == {"name": first.name, "sha256": artifacts.sha256(first.weights_path)}
    assert fit(Run(**standing, start_from=first.name, name="tuned"), data).cached
    other = fit(Run(**QUICK, seed=1), data)
    for suffix in (".pth", ".json"):  # the same name, other weights: another run
        source = other.weights_path.with_suffix(suffix)
        artifacts.write_atomic(first.weights_path.with_suffix(suffix), source.read_bytes())
    assert not fit(Run(**standing, start_from=first.name, name="tuned"), data).cached


def test_weights_that_do_not_fit_or_are_missing_stop_a_fine_tuning(root, data):
    fit(Run(**QUICK | {"epochs": 1}), data)
    with pytest.raises(
        ValueError, match="start_from = .*student_si_resnet8_digits.pth: weights of another architecture"
    ):
        fit(Run(**QUICK | {"model": "resnet14"}, start_from="student_si_resnet8_digits"), data)
    with pytest.raises(FileNotFoundError, match="nothing: not trained yet"):
        fit(Run(**QUICK, start_from="nothing"), data)


def test_data_of_another_name_or_size_is_refused(root, data):
    with pytest.raises(ValueError, match="data: digits at 16 px was given, the run is of dataset = cifar100"):
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

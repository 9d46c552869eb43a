"""Finished trainings: one trainer at a time, a second name as a copy, what every rank of a group sees."""

import json
import threading
from hashlib import sha256
from types import SimpleNamespace

import pytest
import torch
from training_fixtures import QUICK, Recorder, same

from kdhelpers import Run, artifacts, fit, load_model, stored_students
from kdhelpers.training import finished as stored
from kdhelpers.training.checkpoint import rename_checkpoint
from kdhelpers.training.inputs import Inputs, earlier_identity

RUN = Run(**QUICK | {"epochs": 1})


@pytest.fixture
def trained(root, data):
    return fit(RUN, data, progress=Recorder())


def renamed(name):
    return RUN.model_copy(update={"name": name})


def test_a_trainer_waits_until_another_process_ends_and_says_so(root, capsys):
    other = artifacts.lock(artifacts.run_lock_path("0123abc"))
    other.__enter__()
    ended = threading.Event()

    def end():
        ended.set()
        other.__exit__(None, None, None)

    threading.Timer(0.1, end).start()
    with stored.run_lock("0123abc"):
        assert ended.is_set()
    assert capsys.readouterr().err.count("is being trained by another process; waiting") == 1


def test_a_trainer_alone_does_not_wait_and_shuts_others_out(root, capsys):
    with stored.run_lock("0123abc"):
        with pytest.raises(BlockingIOError), artifacts.lock(artifacts.run_lock_path("0123abc"), wait=False):
            pass
        with stored.run_lock("another"):
            pass
    assert not capsys.readouterr().err


def test_a_second_name_is_a_copy_that_loads_and_counts_once(trained, capsys):
    for _ in range(2):
        stored.add_alias(renamed("again"), trained.record)
    told = "this run is stored as student_si_resnet8_digits; again is a copy of it"
    assert capsys.readouterr().err.splitlines() == [told]
    assert same(load_model("again").state_dict(), trained.model.state_dict())
    described = artifacts.load_json(artifacts.weights_path("again").with_suffix(".json"))
    assert described["name"] == "again"
    assert described["identity"] == trained.record["identity"]
    assert [record["name"] for record in artifacts.records()] == [trained.name]


def test_a_run_without_a_name_or_with_its_own_is_not_copied(trained):
    before = sorted(artifacts.folder("weights").iterdir())
    for run in (RUN, renamed(trained.name)):
        stored.add_alias(run, trained.record)
    assert sorted(artifacts.folder("weights").iterdir()) == before


def test_a_name_that_another_run_has_stays_with_it(trained, data, capsys):
    other = fit(Run(**QUICK | {"epochs": 1, "lr": 0.01}, name="taken"), data, progress=Recorder())
    kept = other.weights_path.read_bytes()
    stored.add_alias(renamed("taken"), trained.record)
    assert "stored as student_si_resnet8_digits; taken is another run and stays" in capsys.readouterr().err
    assert other.weights_path.read_bytes() == kept


def test_a_name_that_begins_as_the_stored_one_is_copied_too(root, data):
    trained = fit(renamed("foo_bar"), data, progress=Recorder())
    stored.add_alias(renamed("foo"), trained.record)
    assert same(load_model("foo").state_dict(), trained.model.state_dict())


def test_what_this_very_run_left_unfinished_under_the_name_gives_way(root, data):
    with pytest.raises(KeyboardInterrupt):
        fit(Run(**QUICK, name="tau"), data, progress=Recorder(stop_after=1))
    trained = fit(Run(**QUICK, name="alpha"), data, progress=Recorder())
    fit(Run(**QUICK, name="tau"), data, progress=Recorder())
    assert same(load_model("tau").state_dict(), trained.model.state_dict())
    assert [record["name"] for record in artifacts.records()] == ["alpha"]


def test_half_a_copy_is_made_whole(trained):
    stored.add_alias(renamed("again"), trained.record)
    for lost in (".json", ".pth"):
        artifacts.weights_path("again").with_suffix(lost).unlink()
        stored.add_alias(renamed("again"), trained.record)
        assert same(load_model("again").state_dict(), trained.model.state_dict())


def test_a_copy_is_understood_where_stored_runs_are_named(trained):
    stored.add_alias(renamed("again"), trained.record)
    assert artifacts.original_name("again") == trained.name
    assert artifacts.original_name(trained.name) == trained.name
    assert artifacts.original_name("unknown") == "unknown"
    assert stored_students("digits", "resnet8", "again", like="again").students == {
        0: {"CE (no teacher)": trained.name}
    }


def test_a_run_that_was_interrupted_between_weights_and_sidecar_keeps_its_name(root, data, monkeypatch):
    save = artifacts.save_json

    def interrupted(path, value):
        if path.parent == artifacts.folder("weights"):
            raise KeyboardInterrupt
        return save(path, value)

    monkeypatch.setattr(artifacts, "save_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(RUN, data, progress=Recorder())
    monkeypatch.setattr(artifacts, "save_json", save)
    again = fit(RUN, data, progress=Recorder())
    assert again.name == RUN.artifact_name
    assert {path.name for path in artifacts.folder("weights").glob("student*")} == {
        f"{again.name}.pth",
        f"{again.name}.json",
    }


def test_a_record_without_its_weights_is_passed_over_in_silence(trained, data, capsys):
    trained.weights_path.unlink()
    again = fit(RUN, data, progress=Recorder())
    assert not again.cached
    assert "training again" not in capsys.readouterr().err
    assert same(again.model.state_dict(), trained.model.state_dict())


def test_every_rank_of_a_group_does_as_the_first_one_saw(monkeypatch):
    """Each looks at the files at a moment of its own; if one trained and another loaded, they would wait forever."""
    looks = []

    def find(inputs):
        looks.append(inputs)
        return "found" if len(looks) > 1 else None

    monkeypatch.setattr(stored, "find_finished", find)
    monkeypatch.setattr(stored.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(stored.dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(stored.dist, "all_gather_object", lambda everywhere, own: everywhere.__setitem__(0, own))
    for first_saw, expected, looked in ((True, "found", 2), (False, None, 1)):
        monkeypatch.setattr(
            stored.dist, "broadcast_object_list", lambda values, src, first=first_saw: values.__setitem__(0, first)
        )
        looks.clear()
        assert stored.find_finished_on_all_ranks({}) == expected
        assert len(looks) == looked
    looks.append({})
    assert stored.find_finished_on_all_ranks({}) is None  # this rank sees it finished, the first one did not


def with_an_earlier_identity(name):
    """What an earlier version, which made other identities, left of this run."""
    earlier = "e" * 64
    record = artifacts.load_record(name)
    present = artifacts.checkpoint_path(record["identity"])
    for path in present.parent.glob(f"{present.stem}.*p*"):  # the state and the selected weights
        path.rename(path.with_name(path.name.replace(present.stem, earlier[:16])))
    for path in (artifacts.record_path(name), artifacts.weights_path(name).with_suffix(".json")):
        if path.is_file():
            artifacts.save_json(path, artifacts.load_json(path) | {"identity": earlier})
    return earlier


def test_a_run_that_an_earlier_version_began_continues_from_its_checkpoint(root, data, monkeypatch):
    run = Run(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=1))
    earlier, progress = with_an_earlier_identity(run.artifact_name), Recorder()
    resumed = fit(run, data, progress=progress)
    assert progress.done == 1
    assert resumed.name == run.artifact_name
    assert resumed.record["identity"] != earlier
    assert not list(artifacts.folder("checkpoints").glob("*.p*"))
    monkeypatch.setenv("KD_ROOT", str(root / "other"))
    assert same(fit(run, data, progress=Recorder()).model.state_dict(), resumed.model.state_dict())


def test_a_run_that_an_earlier_version_finished_is_found_and_replaces_its_own_files(trained, data):
    stored.add_alias(renamed("again"), trained.record)
    with_an_earlier_identity(trained.name)
    sidecar = artifacts.weights_path("again").with_suffix(".json")
    artifacts.save_json(sidecar, artifacts.load_json(sidecar) | {"identity": "e" * 64})
    again = fit(renamed("again"), data, progress=Recorder())
    assert again.cached
    assert (again.name, again.record["identity"]) == (trained.name, trained.record["identity"])
    assert artifacts.load_json(sidecar)["identity"] == trained.record["identity"]
    retrained = fit(RUN, data, progress=Recorder(), force_retrain=True)
    assert retrained.name == trained.name
    assert [record["name"] for record in artifacts.records()] == [trained.name]


def test_the_identity_of_earlier_versions_is_known(data):
    """It finds a checkpoint whose record another run has replaced."""
    run = Run(**QUICK, method="crd", teacher="resnet8")
    inputs = Inputs(run, data, torch.device("cpu"), "fp32", SimpleNamespace(sha256="a" * 64))
    fields = run.model_dump(
        exclude={"name", "placebo", "unlabelled", "unlabelled_batch_size", "start_from", "other_image_size"}
    )
    fields["hyperparameters"] |= {"positive": "exact", "normalizer": "frozen"}
    run_id = sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    expected = sha256(f"{run_id} {data.content_hash} {'a' * 64}".encode()).hexdigest()
    assert earlier_identity(inputs) == expected
    assert Run(**fields).id == run.id  # options that are gone are taken at the value that they had


def test_a_checkpoint_of_an_earlier_version_is_found_without_its_record(root, data):
    run = Run(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=1))
    earlier = earlier_identity(Inputs(run, data, torch.device("cpu"), "fp32"))
    present = artifacts.checkpoint_path(artifacts.load_record(run.artifact_name)["identity"])
    rename_checkpoint(present, artifacts.checkpoint_path(earlier))
    artifacts.record_path(run.artifact_name).unlink()
    (artifacts.folder("weights") / "foreign.json").write_text("{damaged")
    progress = Recorder()
    fit(run, data, progress=progress)
    assert progress.done == 1


def test_a_repeated_training_keeps_the_name_that_it_is_stored_under(trained, data):
    other = fit(Run(**QUICK | {"epochs": 1, "lr": 0.01}), data, progress=Recorder())
    assert other.name.startswith(f"{trained.name}-")
    with_an_earlier_identity(other.name)
    for _ in range(2):
        again = fit(other.run, data, progress=Recorder(), force_retrain=True)
        assert again.name == other.name
    assert len(artifacts.records()) == 2


def test_weights_made_elsewhere_are_no_finished_training(trained, data):
    path = artifacts.record_path(trained.name)
    artifacts.save_json(path, artifacts.load_json(path) | {"origin": {"file_sha256": "a" * 64}})
    assert not fit(RUN, data, progress=Recorder()).cached

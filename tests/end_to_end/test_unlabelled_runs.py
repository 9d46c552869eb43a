"""Runs on unlabelled images: what a Run must say, what the loop does with them, what the record says afterwards."""

import pickle
from dataclasses import replace

import pytest
import torch
from training_fixtures import QUICK, Recorder, same, training_of, weights

from kdhelpers import Run, artifacts, fit, fit_sweep
from kdhelpers.data import Split, Unlabelled, read_unlabelled
from kdhelpers.methods import METHODS
from kdhelpers.training.teacher import Teacher, load_teacher

TAUGHT = {**QUICK, "method": "lm_unlabelled", "teacher": "resnet8", "augmentation": "crop jitter rotation"}


@pytest.fixture
def mixed(data):
    """40 labelled images, 50 without labels."""
    train = Split(data.train.images[:40], data.train.labels[:40])
    others = data.train.images[40:90].contiguous()
    return replace(data, train=train, unlabelled=Unlabelled(others, [str(k) for k in range(50)], "train:50"))


@pytest.fixture
def taught(root, mixed):
    fit(Run(**QUICK, role="teacher", unlabelled="train:50"), mixed)
    return {**TAUGHT, "unlabelled": "train:50", "batch_size": 16}


@pytest.mark.parametrize("consistent", [True, False])
def test_it_learns_and_says_so(taught, mixed, consistent):
    run = Run(**taught, hyperparameters={"consistent": consistent}, unlabelled_batch_size=24)
    trained = fit(run, mixed)
    history = trained.history
    assert history[1]["kd_unlabelled"] < history[0]["kd_unlabelled"]
    assert 0 < history[1]["train_top1_pct"] <= 100
    assert trained.record["data"]["unlabelled"] == 50
    assert trained.record["notes"] == []
    for row in history:  # 3 steps of 24 beside the 40, and a share of the time is for the held-out images
        assert row["images_per_second"] * row["seconds"] >= 40 + 3 * 24


def test_weight_zero_is_supervised_distillation_bit_for_bit(taught, mixed):
    run = Run(**taught, hyperparameters={"unlabelled_weight": 0})
    with_images = fit(run, mixed)
    alone = {field: value for field, value in taught.items() if field != "unlabelled"}
    without = fit(Run(**alone, hyperparameters={"unlabelled_weight": 0}), replace(mixed, unlabelled=None))
    assert with_images.name != without.name
    assert same(weights(with_images), weights(without))
    keys = ("loss", "ce", "kd", "train_top1_pct", "val_top1_pct")
    rows = [[{key: row[key] for key in keys} for row in trained.history] for trained in (with_images, without)]
    assert rows[0] == rows[1]
    assert not same(weights(fit(Run(**taught), mixed)), weights(without))


def test_where_the_augmentation_is_gentle_it_is_plain_logit_matching_bit_for_bit(taught, mixed):
    plain = taught | {"augmentation": "crop"}
    weight = {"temperature": 4.0, "ce_weight": 0.5, "kd_weight": 0.5}
    ours = fit(Run(**plain, hyperparameters={"unlabelled_weight": 0, **weight}), mixed)
    matched = fit(Run(**plain | {"method": "lm"}, hyperparameters=weight), mixed)
    assert same(weights(ours), weights(matched))


def test_accuracy_while_training_is_that_of_the_labelled_images(taught, mixed):
    training = training_of(Run(**taught), mixed, load_teacher("teacher_resnet8_digits"))
    counted, expected, rest = [], [], []
    for batch in training.batches.epoch(1):
        counted.append(training.module(batch, 1)[1])
        with torch.no_grad():
            said = training.network(torch.cat([batch.views[0], batch.unlabelled.views[0]])).argmax(1)
        expected.append((said[: len(batch.labels)] == batch.labels).sum())
        rest.append((said[-len(batch.labels) :] == batch.labels).sum())
    assert counted == expected != rest


def test_a_method_that_does_not_ask_is_shown_no_unlabelled_image(taught, mixed, monkeypatch):
    class Watching(METHODS["si"]):
        def forward(self, student, teacher, batch, epoch):
            assert batch.unlabelled is batch.weak_view is None
            return super().forward(student, teacher, batch, epoch)

    monkeypatch.setitem(METHODS, "si", Watching)
    fit(Run(**{field: value for field, value in taught.items() if field != "teacher"} | {"method": "si"}), mixed)


def test_labels_that_are_present_but_unlabelled_change_nothing(root, data, tmp_path):
    """Two files of the very same images whose labels differ: the same bits."""
    fit(Run(**QUICK, role="teacher"), data)
    outcomes = []
    for label in (0, 3):
        content = {"data": data.train.images[40:90].permute(0, 2, 3, 1).numpy(), "ids": list(range(50))}
        path = tmp_path / "more.pkl"
        path.write_bytes(pickle.dumps(content | {"labels": [label] * 50}))
        others = read_unlabelled(path)
        run = Run(**TAUGHT | {"unlabelled": str(path)})
        trained = fit(run, replace(data, unlabelled=others), force_retrain=True)
        outcomes.append((weights(trained), trained.record["data"]["hash"]))
    assert same(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] == outcomes[1][1]


def test_a_step_shows_as_many_unlabelled_images_as_the_run_says(taught, mixed):
    teacher = load_teacher("teacher_resnet8_digits")
    for size, shown in ((None, 16), (24, 24)):
        run = Run(**taught, unlabelled_batch_size=size)
        training = training_of(run, mixed, teacher)
        assert {len(batch.unlabelled.index) for batch in training.batches.epoch(1)} == {shown}
        assert training.batches.unlabelled_per_epoch == 3 * shown


def test_an_interrupted_run_goes_on_to_the_same_bits(taught, mixed):
    with pytest.raises(KeyboardInterrupt):
        fit(Run(**taught), mixed, progress=Recorder(stop_after=1))
    recorder = Recorder()
    resumed = weights(fit(Run(**taught), mixed, progress=recorder))
    assert recorder.done == 1
    assert same(resumed, weights(fit(Run(**taught), mixed, force_retrain=True)))


def test_in_lockstep_each_is_what_it_is_alone_and_those_without_the_wish_see_no_unlabelled_image(taught, mixed):
    runs = [
        Run(**taught),
        Run(**taught, hyperparameters={"unlabelled_weight": 0}, name="supervised"),
        Run(**{k: v for k, v in taught.items() if k != "teacher"} | {"method": "si"}),
    ]
    alone = [weights(fit(run, mixed)) for run in runs]
    for expected, trained in zip(alone, fit_sweep(runs, mixed, force_retrain=True), strict=True):
        assert same(expected, weights(trained))
    other = Run(**taught, hyperparameters={"consistent": False}, name="other")
    with pytest.raises(ValueError, match=r"runs: differ in the teacher's weak view \(own_crop, shared_crop\)"):
        fit_sweep([runs[0], other], mixed)
    with pytest.raises(ValueError, match="runs: differ in unlabelled_batch_size"):
        fit_sweep([runs[0], Run(**taught, unlabelled_batch_size=4)], mixed)


def test_runs_that_number_other_images_or_views_have_tables_of_their_own(taught, mixed):
    kinds = ({}, {"hyperparameters": {"unlabelled_weight": 0}}, {"augmentation": "crop"}, {"augmentation": "jitter"})
    for kind in kinds:
        fit(Run(**taught | kind), mixed, cache_teacher=True)
    fit(Run(**taught | {"augmentation": "crop rotation"}), mixed, cache_teacher=True)  # seen through a crop, too
    assert len(list(artifacts.folder("outputs").glob("*.keys"))) == 3


@pytest.mark.parametrize("consistent", [True, False])
def test_weak_views_are_looked_up_although_the_students_are_beyond_counting(taught, mixed, consistent, monkeypatch):
    run = Run(**taught, hyperparameters={"consistent": consistent}, unlabelled_batch_size=60)
    live = weights(fit(run, mixed))
    seen, compute = [], Teacher.__call__
    monkeypatch.setattr(
        Teacher, "__call__", lambda *given, **ends: seen.append(len(given[1])) or compute(*given, **ends)
    )
    filled = weights(fit(run, mixed, cache_teacher=True, force_retrain=True))
    assert sum(seen) > 100
    seen.clear()
    looked_up = weights(fit(run, mixed, cache_teacher=True, force_retrain=True))
    assert max(seen, default=0) <= 2, "besides the images that shapes are taken from, nothing is computed again"
    assert same(live, filled)
    assert same(live, looked_up)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"unlabelled": None},
            "unlabelled: method lm_unlabelled trains on images without labels; give test, train:16000",
        ),
        ({"unlabelled": ""}, "unlabelled: method lm_unlabelled"),
        ({"unlabelled": "nowhere.pkl"}, "unlabelled = 'nowhere.pkl': .*no such file or folder"),
        ({"unlabelled": "train:0"}, "unlabelled = 'train:0': .*known: test"),
        ({"method": "lm", "unlabelled": None, "unlabelled_batch_size": 8}, "unlabelled_batch_size = 8: has no effect"),
        ({"unlabelled_batch_size": 1}, "unlabelled_batch_size = 1"),
    ],
)
def test_a_run_that_cannot_be_is_refused_at_once(root, change, says):
    with pytest.raises(ValueError, match=says):
        Run(**TAUGHT | {"unlabelled": "test"} | change)


def test_data_with_other_unlabelled_images_than_the_run_says_is_refused(taught, mixed, data):
    for run, given in (
        (Run(**taught | {"unlabelled": "train:20"}), mixed),
        (Run(**taught), data),
        (Run(**QUICK), mixed),
    ):
        with pytest.raises(ValueError, match=rf"unlabelled = {run.unlabelled} \(given: .*\); load what"):
            fit(run, given)


def test_runs_without_unlabelled_images_keep_their_id():
    run = Run(model="resnet20", epochs=8)
    assert run.id == Run(model="resnet20", epochs=8, unlabelled=None, unlabelled_batch_size=None).id
    assert run.id != Run(model="resnet20", epochs=8, unlabelled="test").id


def test_fit_loads_what_the_run_names(root, data):
    fit(Run(**QUICK, role="teacher"), data)
    run = Run(**TAUGHT | {"epochs": 1}, unlabelled="train:1200")
    record = fit(run).record
    assert (record["data"]["train"], record["data"]["unlabelled"]) == (93, 1200)

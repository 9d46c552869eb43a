"""CoCoRD in the loop: what a checkpoint restores, that it may be interrupted, and its company in lockstep."""

import copy

import pytest
import torch
from training_fixtures import QUICK, Recorder, parameters_of, same, train_one_epoch, training_of, weights

from kdhelpers import Run, artifacts, fit, fit_sweep
from kdhelpers.training.teacher import load_teacher

QUEUE = {"queue_size": 50, "hidden_dim": 16, "dim": 8, "predictor_dim": 4}  # 120 keys an epoch: it wraps around


@pytest.fixture
def run(root, data):
    teacher = fit(Run(**QUICK, role="teacher"), data)
    return Run(**QUICK | {"epochs": 3}, method="cocord", teacher=teacher.name, hyperparameters=QUEUE)


def test_an_interrupted_run_ends_in_the_same_bits_and_its_weights_are_the_students_alone(run, data):
    whole = fit(run, data)
    expected = weights(whole)
    assert set(expected) == set(whole.model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, force_retrain=True, progress=Recorder(stop_after=1))
    state = artifacts.load_tensors(artifacts.checkpoint_path(whole.record["identity"]))
    assert not [name for name in state["network"] if "slow" in name or "projector" in name]
    artifacts.record_path(whole.name).unlink()  # or the finished one would be loaded
    assert same(weights(fit(run, data)), expected)


def training(run, data):
    return training_of(run, data, load_teacher(run.teacher))


def test_a_checkpoint_restores_queue_slow_student_and_projectors_and_no_frozen_part_has_optimiser_state(run, data):
    first, second = training(run, data), training(run, data)
    for _ in range(2):
        train_one_epoch(first)
    second.restore(copy.deepcopy(first.state()))  # as through a file
    states = first.method.state_dict(), second.method.state_dict()
    assert same(*states)
    kinds = {name.split(".")[0] for name in states[0]}
    assert kinds == {"queue", "slow", "slow_projector", "projector", "predictor", "teacher_projector"}
    for one in (first, second):
        train_one_epoch(one)
    assert same(first.method.state_dict(), second.method.state_dict())
    assert same(first.network.state_dict(), second.network.state_dict())
    frozen = {id(p) for p in first.method.parameters() if not p.requires_grad}
    assert frozen
    assert not frozen & {id(p) for group in first.optimizer.param_groups for p in group["params"]}


def test_in_the_loop_the_slow_student_is_the_student_one_step_earlier_where_its_momentum_is_0(run, data):
    options = run.hyperparameters | {"slow_momentum": 0.0}
    one = training(run.model_copy(update={"hyperparameters": options}), data)
    one.begin_epoch()
    for batch in one.batches.epoch(1):
        before = parameters_of(one.network, one.method.projector)
        one.step(batch)
        assert all(map(torch.equal, parameters_of(one.method.slow, one.method.slow_projector), before))
    assert not any(map(torch.equal, before, parameters_of(one.network, one.method.projector)))


def test_beside_another_student_in_lockstep_each_ends_as_alone(run, data):
    runs = [Run(**QUICK | {"epochs": 3}), run]
    alone = [weights(fit(run, data)) for run in runs]
    for state, trained in zip(alone, fit_sweep(runs, data, force_retrain=True), strict=True):
        assert same(state, weights(trained)), trained.name


def test_without_its_own_terms_it_is_the_student_alone_bit_for_bit(run, data):
    own_terms_off = {**QUEUE, "contrast_weight": 0, "prediction_weight": 0}
    alone = fit(Run(**QUICK), data)
    plain = fit(Run(**QUICK, method="cocord", teacher=run.teacher, hyperparameters=own_terms_off), data)
    assert same(weights(alone), weights(plain))

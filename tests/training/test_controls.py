"""The controls and the teacher of a student."""

import pytest
from training_fixtures import same, training_of

from kdhelpers import artifacts, fit, load_data, load_model, results
from kdhelpers.artifacts import records
from kdhelpers.training.controls import control_runs, ensure_teacher, with_untrained_teacher, without_teacher
from kdhelpers.training.run import Run


def test_the_control_differs_in_the_method_alone():
    run = Run(method="supcrd", teacher="resnet20", hyperparameters={"lam": 0.3}, lr=0.2, seed=3, selection="last")
    control = without_teacher(run)
    assert (control.method, control.teacher, control.lr, control.seed) == ("si", None, 0.2, 3)
    assert control.artifact_name == "student_si_last_resnet8_digits_seed3"
    assert without_teacher(Run(method="lm", teacher="resnet20")) == Run()
    assert (
        without_teacher(Run(method="lm", teacher="resnet20", optimizer="adamw")).name
        == "student_si_adamw_resnet8_digits"
    )


def test_a_missing_teacher_is_trained_once_by_the_runs_recipe(root):
    recipe = {"image_size": 8, "epochs": 1, "batch_size": 256}
    run = Run(method="lm", teacher="resnet8", selection="last", seed=3, **recipe)
    data = load_data(run.dataset, run.image_size)
    for _ in range(2):
        assert ensure_teacher(run, data) == run
    (record,) = records()
    assert record["run"] == Run(role="teacher", model="resnet8", **recipe).model_dump()


def test_a_missing_teacher_that_is_not_an_architecture_is_an_error(root):
    with pytest.raises(FileNotFoundError, match="my_teacher"):
        ensure_teacher(Run(method="lm", teacher="my_teacher"))


def test_a_recipe_gives_the_run_the_teacher_of_its_settings(root):
    run = Run(method="lm", teacher="resnet8", image_size=8, epochs=1, batch_size=256, unlabelled="train:800")
    first = ensure_teacher(run, recipe="lr=0.2 augmentation='crop jitter'")
    other = ensure_teacher(run, recipe="lr=0.3")
    trained = {record["name"]: record["run"] for record in records()}
    assert first.teacher == "teacher_resnet8_digits"
    assert other.teacher.startswith("teacher_resnet8_digits-")
    assert (trained[first.teacher]["lr"], trained[first.teacher]["augmentation"]) == (0.2, "crop jitter")
    assert trained[first.teacher]["unlabelled"] == "train:800"
    assert trained[other.teacher]["lr"] == 0.3


def test_the_controls_of_a_run_share_its_budget_and_its_teacher():
    run = Run(method="dkd", teacher="resnet20", hyperparameters={"beta": 2.0}, lr=0.2, seed=3, name="mine")
    controls = control_runs(run)
    assert [(each.method, each.placebo, each.teacher) for each in controls] == [
        ("si", "", None),
        ("dkd", "", "resnet20"),
        ("dkd", "shuffled", "resnet20"),
        ("dkd", "mean", "resnet20"),
        ("ls", "", None),
        ("lm_mixed", "", "resnet20"),
        ("lm_mixed", "", "resnet20"),
    ]
    assert [each.hyperparameters.get("mix") for each in controls[-2:]] == ["mixup", "cutmix"]
    assert {(each.lr, each.seed) for each in controls} == {(0.2, 3)}
    assert controls[1] == run
    assert controls[2].hyperparameters == run.hyperparameters
    assert len({each.artifact_name for each in controls}) == 7


def test_an_untrained_teacher_has_the_weights_that_its_training_begins_with(root, data):
    """It is stored once, found again, tested, and said to be untrained wherever it teaches."""
    trained = fit(Run(role="teacher", model="resnet8", epochs=1), data)
    run = Run(method="dkd", teacher="resnet8", epochs=1, name="mine")
    other = with_untrained_teacher(run, data)
    assert with_untrained_teacher(run, data) == other
    assert (other.teacher, other.name) == ("untrained_resnet8_digits", "mine_untrained_teacher")
    assert other.model_copy(update={"teacher": run.teacher, "name": run.name}) == run
    untrained = artifacts.load_record(other.teacher)
    assert (untrained["run"]["epochs"], untrained["history"], untrained["selection"]["epoch"]) == (0, [], 0)
    assert set(untrained["metrics"]) == {"test_top1_pct", "test_top5_pct", "test_nll", "test_ece_pct"}
    start = training_of(Run(role="teacher", model="resnet8", precision="fp32"), data).network.state_dict()
    assert same(start, load_model(other.teacher).state_dict())
    assert not same(start, trained.model.state_dict())
    student = fit(other, data)
    assert student.record["teacher"]["untrained"] is True
    assert fit(run, data).record["teacher"].get("untrained") is None
    assert set(results("digits")["label"]) == {"teacher", "untrained teacher", "DKD", "DKD, untrained teacher"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "excludes role = student; train for an epoch or more, or take role = teacher"),
        ({"role": "teacher", "method": "lm", "teacher": "resnet20"}, "excludes method = lm"),
        ({"role": "teacher", "start_from": "resnet20"}, "excludes start_from = resnet20"),
        (
            {"role": "teacher", "model": "resnet18", "pretrained": True, "model_options": {"stem": "imagenet"}},
            "excludes pretrained = True",
        ),
        ({"role": "teacher", "epochs": -1}, "epochs = -1: Input should be greater than or equal to 0"),
    ],
)
def test_no_epochs_are_refused_for_anything_else(fields, message):
    with pytest.raises(ValueError, match=message):
        Run(**{"epochs": 0} | fields)

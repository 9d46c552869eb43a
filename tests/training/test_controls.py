"""The control and the teacher of a student."""

import pytest

from kdhelpers import load_data
from kdhelpers.artifacts import records
from kdhelpers.training.controls import ensure_teacher, without_teacher
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

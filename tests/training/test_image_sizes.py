"""A teacher of another image size than the student's data: refused, or measured and recorded."""

import pytest
import torch
from training_fixtures import QUICK

from kdhelpers import Run, fit, load_data
from kdhelpers.display.progress import Progress
from kdhelpers.evaluation.metrics import evaluate
from kdhelpers.evaluation.predictions import infer
from kdhelpers.training.controls import control_runs, without_teacher
from kdhelpers.training.inputs import earlier_identity, resolve
from kdhelpers.weights.load import load_model


@pytest.fixture
def teacher(root, data):
    return fit(Run(**QUICK, role="teacher"), data, progress=Progress())


def small():
    return load_data("digits", image_size=8)


def test_it_is_refused_with_both_sizes_before_the_training(teacher):
    run = Run(**QUICK, method="lm", teacher=teacher.name, image_size=8)
    says = "was trained at 16 px, digits has 8 px; .* take image_size = 16, or other_image_size = true"
    with pytest.raises(ValueError, match=says):
        fit(run, progress=Progress())


def test_by_option_it_is_measured_on_these_images(teacher):
    run = Run(**{**QUICK, "epochs": 1}, method="lm", teacher=teacher.name, image_size=8, other_image_size=True)
    record = fit(run, progress=Progress()).record
    here = evaluate(infer(load_model(teacher.name), small()))["top1_pct"]
    assert record["teacher"]["test_top1_pct"] == pytest.approx(here)
    assert record["teacher"]["own_test_top1_pct"] == teacher.metrics["test_top1_pct"] != here
    assert record["teacher"]["image_size"] == 16
    assert record["notes"] == ["teacher: trained at 16 px, used at 8 px; its accuracy is measured there"]


def test_runs_without_the_option_keep_their_identity(teacher, data):
    run = Run(**QUICK, method="lm", teacher=teacher.name)
    [inputs] = resolve([run], data, torch.device("cpu"))
    assert "other_image_size" not in inputs.facts["run"]
    assert len(earlier_identity(inputs)) == 64


def test_a_control_without_a_teacher_is_the_usual_one(teacher):
    run = Run(**QUICK, method="lm", teacher=teacher.name, image_size=8, other_image_size=True)
    assert without_teacher(run) == Run(**QUICK, image_size=8)
    assert [each.other_image_size for each in control_runs(run)] == [bool(each.teacher) for each in control_runs(run)]

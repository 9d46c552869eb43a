import pytest
import torch

from kdhelpers import analysis, kd_loss, rld_loss, ttm_loss

TEACHER = torch.tensor([[5.0, 6.0, 3.0, 1.0, 3.0]], dtype=torch.float64)
STUDENT = torch.tensor([[0.4, 0.1, -0.3, 0.2, -0.4]])
LABEL = torch.tensor([0])


def test_the_minimum_of_kd_is_the_teachers_prediction_and_of_ttm_the_softened_one():
    losses = {"KD": lambda z: kd_loss(z, TEACHER), "TTM": lambda z: ttm_loss(z, TEACHER, 0.1)}
    found = analysis.minimal_predictions(losses, STUDENT)
    torch.testing.assert_close(found["KD"], TEACHER.softmax(1), rtol=0, atol=1e-3)
    torch.testing.assert_close(found["TTM"], (0.1 * TEACHER).softmax(1), rtol=0, atol=1e-3)


def test_pulls_have_the_sign_of_the_step_and_masked_classes_have_none():
    losses = {"KD": lambda z: kd_loss(z, TEACHER), "RLD": lambda z: rld_loss(z, TEACHER, LABEL, alpha=0.0)}
    found = analysis.pulls(losses, STUDENT)
    difference = (TEACHER / 4).softmax(1) - (STUDENT.double() / 4).softmax(1)
    torch.testing.assert_close(found["KD"], difference / difference.abs().max())
    assert (found["RLD"][0, :2] == 0).all(), "the label, and the class that the teacher prefers to it"
    assert found["RLD"][0, 2:].all()


@pytest.mark.parametrize("signed", [False, True])
def test_a_table_has_a_number_in_every_cell_that_is_not_zero(signed):
    rows = {"teacher": torch.tensor([0.75, 0.25, 0.0]), "student": torch.tensor([-0.5 if signed else 0.5, 0.5, 0.0])}
    axes = analysis.class_table(rows, ["cat", "dog", "car"], signed).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.75", "0.25", f"{'-' * signed}0.50", "0.50"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["teacher", "student"]
    assert axes.images[0].get_clim() == (-1 if signed else 0, 1)

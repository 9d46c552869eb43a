"""The two losses of CoCoRD against loops, their gradients and their hard cases."""

import math

import pytest
import torch
from cocord_loops import draw, naive_contrast, naive_prediction, unit

from kdhelpers.methods import cocord_contrast_loss, cocord_prediction_loss


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_contrast_is_the_loop(temperature):
    student, teacher, queue = unit(4, 3), unit(4, 3, seed=1), unit(7, 3, seed=2)
    found = cocord_contrast_loss(student, teacher, queue, temperature).item()
    assert found == pytest.approx(naive_contrast(student, teacher, queue, temperature), rel=1e-12)


def test_the_contrast_of_equal_rows_is_log_1_plus_k_and_has_no_gradient():
    rows = unit(1, 3).expand(9, 3)
    student = rows[:2].clone().requires_grad_()
    loss = cocord_contrast_loss(student, rows[:2], rows)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(10))
    assert student.grad.abs().max() < 1e-12


def test_the_gradient_of_the_contrast_is_the_numerical_one():
    teacher, queue = unit(4, 3, seed=1), unit(7, 3, seed=2)
    inputs = (unit(4, 3).requires_grad_(),)
    assert torch.autograd.gradcheck(lambda s: 3 * cocord_contrast_loss(s, teacher, queue, 0.2), inputs)


def test_keys_written_over_the_queue_before_the_backward_pass_leave_the_gradient_as_it_was():
    student, teacher, queue = unit(4, 3).requires_grad_(), unit(4, 3, seed=1), unit(7, 3, seed=2)
    (expected,) = torch.autograd.grad(cocord_contrast_loss(student, teacher, queue), student)
    loss = cocord_contrast_loss(student, teacher, queue)
    queue.zero_()
    loss.backward()
    assert torch.equal(student.grad, expected)


@pytest.mark.parametrize("similarity", [1.0, -1.0])
def test_a_saturated_contrast_stays_finite(similarity):
    """The nearest possible key against the furthest rows, and the reverse, at a temperature where e^(1/T) overflows."""
    student = unit(2, 3).float().requires_grad_()
    key = similarity * student.detach()
    loss = cocord_contrast_loss(student, key, -key[:1].expand(5, 3), 0.001)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_half_types_are_computed_in_float32_even_under_autocast():
    rounded = [value.bfloat16() for value in (unit(4, 3), unit(4, 3, seed=1), unit(7, 3, seed=2))]
    views = [value.bfloat16() for value in (draw(4, 2, 3), draw(4, 2, 3, seed=1))]
    with torch.autocast("cpu", torch.bfloat16):
        losses = cocord_contrast_loss(*rounded), cocord_prediction_loss(*views)
        wide = cocord_contrast_loss(*(value.float() for value in rounded))  # matrix products would be rounded
    expected = (
        cocord_contrast_loss(*(v.double() for v in rounded)),
        cocord_prediction_loss(*(v.double() for v in views)),
    )
    for found, exact in zip((*losses, wide), (*expected, expected[0]), strict=True):
        assert found.dtype is torch.float32
        assert found.item() == pytest.approx(exact.item(), rel=1e-5)


def test_the_prediction_loss_is_the_loop_at_any_length_of_its_vectors():
    prediction, slow = draw(4, 2, 3), draw(4, 2, 3, seed=1)
    expected = naive_prediction(prediction, slow)
    assert cocord_prediction_loss(prediction, slow).item() == pytest.approx(expected, rel=1e-12)
    assert cocord_prediction_loss(7 * prediction, slow / 7).item() == pytest.approx(expected, rel=1e-12)


def test_the_prediction_loss_is_0_where_each_view_predicts_the_other_and_8_where_it_predicts_its_opposite():
    slow = draw(4, 2, 3)
    assert cocord_prediction_loss(slow.flip(1), slow).item() == pytest.approx(0, abs=1e-12)
    assert cocord_prediction_loss(-slow.flip(1), slow).item() == pytest.approx(8)
    assert cocord_prediction_loss(slow, slow).item() > 0.1  # a view does not predict itself


def test_the_gradient_of_the_prediction_loss_is_the_numerical_one_and_zeros_stay_finite():
    slow = draw(4, 2, 3, seed=1)
    inputs = (draw(4, 2, 3).requires_grad_(),)
    assert torch.autograd.gradcheck(lambda p: cocord_prediction_loss(p, slow), inputs)
    nothing = torch.zeros(2, 2, 3, requires_grad=True)
    loss = cocord_prediction_loss(nothing, slow[:2].float())
    loss.backward()
    assert loss.item() == 4
    assert nothing.grad.isfinite().all()


def test_shapes_that_do_not_fit_are_named():
    rows = unit(4, 3)
    for wrong in ((rows, rows[:2], rows), (rows, rows, unit(7, 4))):
        with pytest.raises(ValueError, match=r"student_embedding \(4, 3\), .*: must be .* queue \[K, d\]"):
            cocord_contrast_loss(*wrong)
    for wrong in ((draw(4, 2, 3), draw(4, 2, 2)), (draw(4, 3, 3), draw(4, 3, 3)), (rows, rows)):
        with pytest.raises(ValueError, match=r"must be student_prediction \[B, 2, d\], slow_embedding \[B, 2, d\]"):
            cocord_prediction_loss(*wrong)

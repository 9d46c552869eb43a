"""In-batch InfoNCE against a loop, its limits, and its gradient."""

import math

import pytest
import torch
import torch.nn.functional as F

from kdhelpers.methods import info_nce_loss


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def naive(student, teacher, temperature):
    score = [[sum(map(float.__mul__, s, t)) / temperature for t in teacher.tolist()] for s in student.tolist()]
    batch, total = len(score), 0.0
    for i in range(batch):
        total -= math.log(math.exp(score[i][i]) / sum(math.exp(score[i][j]) for j in range(batch)))
        total -= math.log(math.exp(score[i][i]) / sum(math.exp(score[j][i]) for j in range(batch)))
    return total / 2 / batch


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_it_is_the_loop_in_both_directions(temperature):
    student, teacher = unit(5, 3), unit(5, 3, seed=1)
    assert info_nce_loss(student, teacher, temperature).item() == pytest.approx(naive(student, teacher, temperature))


def test_one_image_gives_zero_and_equal_embeddings_log_b():
    one = unit(1, 3).requires_grad_()
    loss = info_nce_loss(one, unit(1, 3, seed=1))
    loss.backward()
    assert loss.item() == 0
    assert one.grad.abs().max() == 0
    assert info_nce_loss(unit(1, 3).repeat(7, 1), unit(1, 3).repeat(7, 1)).item() == pytest.approx(math.log(7))


def test_the_gradient_is_the_numerical_one():
    inputs = unit(4, 3).requires_grad_(), unit(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: info_nce_loss(s, t, 0.2), inputs)


def test_a_tiny_temperature_stays_finite_and_half_types_are_computed_in_float32():
    assert info_nce_loss(unit(4, 3).float(), unit(4, 3, seed=1).float(), 1e-3).isfinite()
    rounded = unit(4, 3).bfloat16(), unit(4, 3, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce_loss(*rounded)
    assert found.dtype is torch.float32
    assert found.item() == pytest.approx(info_nce_loss(*(v.double() for v in rounded)).item(), rel=1e-5)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"teacher_embedding \(4, 2\): must be student_embedding \[B, d\]"):
        info_nce_loss(unit(4, 3), unit(4, 2))

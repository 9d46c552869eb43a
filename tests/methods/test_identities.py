"""Published identities between the methods, on random logits of any size: values, and gradients of the student."""

import pytest
import torch

from kdhelpers.methods import kd_loss, normkd_loss, standardized_kd_loss, ttm_loss, wttm_loss


def logits(seed, batch=6, classes=10):
    """Of the student and the teacher, whose images differ in scale from 0.1 to 30."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, batch, classes, dtype=torch.float64, generator=generator).unbind()
    scale = torch.logspace(-1, 1.5, batch, dtype=torch.float64)[:, None]
    return (student * scale.flip(0)).requires_grad_(), teacher * scale


def assert_same(student, first, second):
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)
    gradients = (torch.autograd.grad(loss, student)[0] for loss in (first, second))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def images(student, teacher):
    """Each image as a batch of its own."""
    return zip(student.split(1), teacher.split(1), strict=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_normkd_is_standardised_kd_with_a_weight_per_image(seed, temperature):
    """The weight is the variance of the teacher's logits over the classes, with C - 1."""
    student, teacher = logits(seed)
    of_images = [t.var() * standardized_kd_loss(s, t, temperature) for s, t in images(student, teacher)]
    assert_same(student, normkd_loss(student, teacher, temperature), torch.stack(of_images).mean())


@pytest.mark.parametrize("seed", range(5))
def test_normkd_of_teachers_with_unit_deviation_is_standardised_kd(seed):
    student, teacher = logits(seed)
    teacher = teacher / teacher.std(1, keepdim=True)
    assert_same(student, normkd_loss(student, teacher, 2.0), standardized_kd_loss(student, teacher, 2.0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [0.1, 0.25, 1.0])
def test_ttm_is_kd_with_a_temperature_on_the_teacher_alone(seed, gamma):
    """KL(softmax(z_t / T) || softmax(z_s)) with T = 1 / gamma: of KD at T 1, or of KD at T with T z_s, without T^2."""
    student, teacher = logits(seed)
    loss = ttm_loss(student, teacher, gamma)
    assert_same(student, loss, kd_loss(student, gamma * teacher, 1.0))
    assert_same(student, ttm_loss(student, teacher, gamma), gamma**2 * kd_loss(student / gamma, teacher, 1 / gamma))


@pytest.mark.parametrize("seed", range(5))
def test_wttm_is_ttm_with_a_weight_per_image(seed):
    """The weight is the power sum of the teacher's probabilities, sum_c p_c^gamma."""
    student, teacher = logits(seed)
    of_images = [t.softmax(1).pow(0.2).sum() * ttm_loss(s, t, 0.2) for s, t in images(student, teacher)]
    assert_same(student, wttm_loss(student, teacher, 0.2), torch.stack(of_images).mean())

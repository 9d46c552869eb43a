"""Weighted soft labels against the equation in Python floats, its limits, and saturated logits."""

import math

import pytest
import torch
import torch.nn.functional as F

from kdhelpers.methods import METHODS, wsld_loss
from kdhelpers.methods.wsld import WeightedSoftLabels
from kdhelpers.models import Outputs


def softmax(z, temperature):
    powers = [math.exp(x / temperature) for x in z]
    return [power / sum(powers) for power in powers]


def naive(student, teacher, labels, temperature):
    """(weight, T^2 times the cross-entropy of the softened distributions) of each image."""
    rows = []
    for z_s, z_t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        student_ce, teacher_ce = -math.log(softmax(z_s, 1)[y]), -math.log(softmax(z_t, 1)[y])
        soft = zip(softmax(z_s, temperature), softmax(z_t, temperature), strict=True)
        rows.append((1 - math.exp(-student_ce / teacher_ce), -(temperature**2) * sum(t * math.log(s) for s, t in soft)))
    return rows


def case(batch=6, classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, batch, classes, generator=generator, dtype=dtype).mul(2).unbind()
    return student, teacher, torch.arange(batch) % classes


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("batch", "classes"), [(6, 5), (1, 2)])
def test_equals_the_equation(temperature, batch, classes):
    student, teacher, labels = case(batch, classes)
    rows = naive(student, teacher, labels, temperature)
    expected = sum(weight * soft for weight, soft in rows) / batch
    assert wsld_loss(student, teacher, labels, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_the_weight_carries_no_gradient():
    """d/dz_s = w T (p_s - p_t) / B, as if w were a constant."""
    student, teacher, labels = case()
    wsld_loss(student.requires_grad_(), teacher, labels, 4.0).backward()
    weights = torch.tensor([weight for weight, _ in naive(student, teacher, labels, 4.0)], dtype=torch.float64)
    difference = (student.detach() / 4).softmax(1) - (teacher / 4).softmax(1)
    torch.testing.assert_close(student.grad, weights[:, None] * 4 * difference / 6, rtol=1e-5, atol=1e-9)


def test_gradcheck_in_float64_with_the_weight_held():
    student, teacher, labels = case()

    def held(z):  # the label's logit is large enough that the weight is 1 within 1e-12
        return wsld_loss(z, teacher + 40 * F.one_hot(labels, 5), labels)

    assert torch.autograd.gradcheck(held, student.requires_grad_())


def test_equal_networks_have_the_weight_of_one_minus_one_over_e():
    student, _, labels = case()
    p = (student / 4).softmax(1)
    entropy = -(p * p.log()).sum(1).mean().item()
    assert wsld_loss(student, student, labels, 4.0).item() == pytest.approx(16 * (1 - math.exp(-1)) * entropy, rel=1e-5)


def test_a_sure_teacher_weighs_one_and_a_sure_student_nothing():
    student, teacher, labels = case()
    sure = 200 * F.one_hot(labels, 5).double()
    soft = F.cross_entropy(student / 4, (sure / 4).softmax(1))
    torch.testing.assert_close(wsld_loss(student, sure, labels), 16 * soft, rtol=1e-9, atol=0)
    assert wsld_loss(sure, teacher, labels).item() == 0
    assert wsld_loss(sure, sure, labels).item() == 0


def test_a_weight_near_zero_keeps_its_digits_in_float32():
    """CE_s / CE_t is 2e-8: 1 - exp() would round to 0."""
    student, teacher, labels = torch.tensor([[10.0, 0.0]]), torch.tensor([[0.0, 2000.0]]), torch.tensor([0])
    exact = wsld_loss(student.double(), teacher.double(), labels)
    assert wsld_loss(student, teacher, labels).item() == pytest.approx(exact.item(), rel=0.05)
    assert exact.item() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gaps_of_ten_thousand_stay_finite_and_right(dtype, label, temperature):
    student = torch.tensor([[1e4, 0.0, -1e4, 3.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 0.0, 1e4, 5.0]], dtype=dtype)
    labels = torch.tensor([label])
    loss = wsld_loss(student, teacher, labels, temperature)
    loss.backward()
    exact = wsld_loss(student.detach().double(), teacher.double(), labels, temperature)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)
    assert student.grad.isfinite().all()


def test_one_class_has_nothing_to_weigh():
    assert wsld_loss(torch.ones(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)).item() == 0


@pytest.mark.parametrize(("classes", "labels"), [(100, 4), (10, 3)])
def test_shapes_that_differ_are_refused(classes, labels):
    with pytest.raises(ValueError, match=rf"\(4, 10\).*\(4, {classes}\).*\({labels},\).*built"):
        wsld_loss(torch.zeros(4, 10), torch.zeros(4, classes), torch.zeros(labels, dtype=torch.long))


def test_the_method_adds_cross_entropy_and_the_weighted_loss():
    class Batch:
        views, labels = (torch.zeros(6, 3, 4, 4),), case()[2]

    student, teacher, labels = case()
    networks = [lambda view, values=values: Outputs(values, None, {}) for values in (student, teacher)]
    terms = METHODS["wsld"](temperature=2.0, ce_weight=0.3, kd_weight=0.6)(*networks, Batch, 1)
    expected = sum(weight * soft for weight, soft in naive(student, teacher, labels, 2.0)) / 6
    assert terms["ce"].item() == pytest.approx(0.3 * F.cross_entropy(student, labels).item())
    assert terms["kd"].item() == pytest.approx(0.6 * expected, rel=1e-5)


def test_the_defaults_are_the_authors():
    method = WeightedSoftLabels()
    assert (method.temperature, method.ce_weight, method.kd_weight) == (4.0, 1.0, 2.25)

"""NormKD against its equation in Python floats, its scales, and logits without a spread."""

import math
import statistics

import pytest
import torch
import torch.nn.functional as F

from kdhelpers.methods import METHODS, Context, normkd_loss
from kdhelpers.methods.normkd import NormalizedLogitMatching
from kdhelpers.models import Outputs


def naive(student, teacher, temperature):
    """The paper's equation with its own symbols: each network's logits over T times their own standard deviation."""
    rows = []
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        t_s, t_t = temperature * statistics.stdev(z_s), temperature * statistics.stdev(z_t)
        e_s, e_t = [math.exp(z / t_s) for z in z_s], [math.exp(z / t_t) for z in z_t]
        p_s, p_t = [e / sum(e_s) for e in e_s], [e / sum(e_t) for e in e_t]
        rows.append(t_t**2 * sum(t * math.log(t / s) for s, t in zip(p_s, p_t, strict=True)))
    return sum(rows) / len(rows)


def case(batch=5, classes=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, batch, classes, generator=generator, dtype=dtype).mul(3).unbind()


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
@pytest.mark.parametrize(("batch", "classes"), [(5, 7), (1, 2)])
def test_equals_the_equation(temperature, batch, classes):
    student, teacher = case(batch, classes)
    expected = naive(student, teacher, temperature)
    assert normkd_loss(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_the_students_scale_and_offset_do_not_matter_and_the_teachers_scale_is_squared():
    student, teacher = case()
    expected = normkd_loss(student, teacher).item()
    moved = student * torch.tensor([[0.1], [1.0], [3.0], [50.0], [7.0]]) + torch.arange(5.0)[:, None]
    assert normkd_loss(moved, teacher).item() == pytest.approx(expected, rel=1e-5)
    assert normkd_loss(student, 3 * teacher - 4).item() == pytest.approx(9 * expected, rel=1e-5)
    assert normkd_loss(-student, teacher).item() != pytest.approx(expected, rel=0.01)


def test_it_is_zero_if_one_is_a_positive_affine_map_of_the_other():
    student, teacher = case()
    assert normkd_loss(teacher * 5 + 1, teacher).item() == pytest.approx(0, abs=1e-12)
    assert normkd_loss(student, teacher).item() > 1e-2


def test_gradcheck_in_float64():
    student, teacher = case()
    assert torch.autograd.gradcheck(lambda s: normkd_loss(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gaps_of_ten_thousand_stay_finite_and_right(dtype):
    student = torch.tensor([[1e4, 0.0, -1e4, 3.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 0.0, 1e4, 5.0]], dtype=dtype)
    loss = normkd_loss(student, teacher, 0.01)  # standardised logits 200 apart: exp() underflows
    loss.backward()
    exact = normkd_loss(student.detach().double(), teacher.double(), 0.01)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [0.0, 3.0, 1000.1])
def test_a_constant_student_is_uniform_and_a_constant_teacher_weighs_nothing(dtype, value):
    _, teacher = case(dtype=dtype)
    student = torch.full_like(teacher, value).requires_grad_()
    loss = normkd_loss(student, teacher)
    loss.backward()
    uniform = torch.full((5, 7), -math.log(7), dtype=torch.float64)
    z = teacher.double()
    target = ((z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True) / 2).softmax(1)
    divergence = F.kl_div(uniform, target, reduction="none").sum(1)
    assert loss.item() == pytest.approx((4 * z.var(1) * divergence).mean().item(), rel=1e-4)
    assert not student.grad.any(), "1 / 1e-7 would multiply it: too much for float16 and for an optimiser"
    no_target = normkd_loss(teacher.clone().requires_grad_(), torch.full_like(teacher, value))
    assert no_target.item() == pytest.approx(0, abs=1e-6)
    no_target.backward()


def test_one_class_and_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"student_logits \(3, 1\): have C = 1, this loss needs C >= 2"):
        normkd_loss(torch.zeros(3, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"\(4, 10\).*\(4, 100\)"):
        normkd_loss(torch.zeros(4, 10), torch.zeros(4, 100))


@pytest.mark.parametrize("method", ["normkd", "mlkd"])
def test_one_class_is_refused_before_training(method):
    one = Outputs(torch.zeros(2, 1), None, {})
    with pytest.raises(ValueError, match="this loss needs C >= 2"):
        METHODS[method]().build(Context(one, one, None, None, 1))


def test_the_method_adds_cross_entropy_and_the_weighted_loss():
    class Batch:
        views, labels = (torch.zeros(5, 3, 4, 4),), torch.tensor([0, 6, 2, 2, 1])

    student, teacher = case()
    networks = [lambda view, values=values: Outputs(values, None, {}) for values in (student, teacher)]
    terms = METHODS["normkd"](temperature=3.0, ce_weight=0.3, kd_weight=0.6)(*networks, Batch, 1)
    assert terms["ce"].item() == pytest.approx(0.3 * F.cross_entropy(student, Batch.labels).item())
    assert terms["kd"].item() == pytest.approx(0.6 * naive(student, teacher, 3.0), rel=1e-5)


def test_the_defaults_are_the_papers():
    method = NormalizedLogitMatching()
    assert (method.temperature, method.ce_weight, method.kd_weight) == (2.0, 0.1, 0.9)
    student, teacher = case()
    assert torch.equal(normkd_loss(student, teacher), normkd_loss(student, teacher, 2.0))

import math

import pytest
import torch
import torch.nn.functional as F

from kdhelpers.methods import METHODS, kd_loss
from kdhelpers.models import Outputs


def naive(student, teacher, temperature):
    """The definition, in Python floats: T^2 mean_b sum_c p_t log(p_t / p_s)."""
    total = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        z_s, z_t = [z / temperature for z in z_s], [z / temperature for z in z_t]
        norm_s, norm_t = sum(map(math.exp, z_s)), sum(map(math.exp, z_t))
        for a, b in zip(z_s, z_t, strict=True):
            p_s, p_t = math.exp(a) / norm_s, math.exp(b) / norm_t
            total += p_t * math.log(p_t / p_s)
    return temperature**2 * total / len(student)


def logits(batch=5, classes=7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, classes, generator=generator, dtype=dtype).mul(3).unbind()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_equals_the_definition(temperature):
    student, teacher = logits()
    assert kd_loss(student, teacher, temperature).item() == pytest.approx(
        naive(student, teacher, temperature), rel=1e-12
    )


def test_zero_exactly_when_logits_differ_by_a_constant_per_row():
    student, teacher = logits()
    assert kd_loss(teacher + torch.arange(5.0)[:, None], teacher).item() == pytest.approx(0, abs=1e-12)
    assert kd_loss(student, teacher).item() > 1e-3


def test_gradient_is_temperature_times_the_difference_of_probabilities():
    student, teacher = logits()
    student.requires_grad_()
    kd_loss(student, teacher, 3.0).backward()
    expected = 3.0 * ((student / 3).softmax(1) - (teacher / 3).softmax(1)) / len(student)
    torch.testing.assert_close(student.grad, expected)


def test_gradcheck_in_float64():
    student, teacher = logits()
    assert torch.autograd.gradcheck(lambda s: kd_loss(s, teacher, 4.0), student.requires_grad_())


def test_high_temperature_matches_centred_logits():
    """T -> infinity: (1 / 2C) ||row-centred z_s - z_t||^2, mean over the batch."""
    student, teacher = logits()
    difference = student - teacher
    centred = difference - difference.mean(1, keepdim=True)
    expected = centred.pow(2).sum(1).mean() / (2 * student.shape[1])
    assert kd_loss(student, teacher, 1e4).item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saturated_logits_stay_finite(dtype):
    student = torch.tensor([[3e4, -3e4, 0.0]], dtype=dtype, requires_grad=True)
    loss = kd_loss(student, torch.tensor([[-3e4, 3e4, 0.0]], dtype=dtype), 1.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(6e4, rel=0.01)
    assert student.grad.isfinite().all()


def test_one_sample_one_class():
    assert kd_loss(torch.tensor([[2.0]]), torch.tensor([[-5.0]])).item() == 0


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 10\).*\(4, 100\)"):
        kd_loss(torch.zeros(4, 10), torch.zeros(4, 100))


class OneView:
    """A batch as the loop makes it, with the 'images' being logits."""

    def __init__(self, view, labels):
        self.views, self.labels, self.index = (view,), labels, torch.arange(len(labels))


def as_network(outputs):
    return lambda view: Outputs(outputs, None, {})


def test_terms_are_weighted_and_sum_to_the_loss():
    student, teacher = logits(dtype=torch.float32)
    batch = OneView(student, torch.tensor([0, 1, 2, 3, 4]))
    terms = METHODS["lm"](ce_weight=0.1, kd_weight=0.9, temperature=4)(
        as_network(student), as_network(teacher), batch, 1
    )
    assert terms["ce"].item() == pytest.approx(0.1 * F.cross_entropy(student, batch.labels).item())
    assert terms["kd"].item() == pytest.approx(0.9 * naive(student.double(), teacher.double(), 4.0), rel=1e-5)


def test_kd_weight_zero_is_cross_entropy_bit_for_bit_and_asks_no_teacher():
    student, _ = logits(dtype=torch.float32)
    batch = OneView(student, torch.tensor([0, 1, 2, 3, 4]))
    matched = METHODS["lm"](ce_weight=1.0, kd_weight=0.0)(as_network(student), None, batch, 1)
    alone = METHODS["si"]()(as_network(student), None, batch, 1)
    assert set(matched) == set(alone) == {"ce"}
    assert torch.equal(matched["ce"], alone["ce"])


@pytest.mark.parametrize("name", ["temperature", "ce_weight", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["lm"](**{name: -1})

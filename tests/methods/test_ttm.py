import math

import pytest
import torch
import torch.nn.functional as F
from logit_cases import at_a_gap, case, hard_cases, softmax, terms_of, train

from kdhelpers.methods import METHODS, kd_loss, ttm_loss, wttm_loss

both = pytest.mark.parametrize("loss", [ttm_loss, wttm_loss])


def naive(student, teacher, gamma):
    """Divergence and weight of each image, in Python floats: the teacher's probabilities to the power gamma."""
    divergences, weights = [], []
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        p_s, powers = softmax(z_s), [p**gamma for p in softmax(z_t)]
        weights.append(sum(powers))
        target = [power / sum(powers) for power in powers]
        divergences.append(sum(q * math.log(q / p) for q, p in zip(target, p_s, strict=True)))
    return divergences, weights


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 3.0])
def test_both_equal_the_definition(gamma):
    student, teacher, _ = case()
    divergences, weights = naive(student, teacher, gamma)
    assert ttm_loss(student, teacher, gamma).item() == pytest.approx(sum(divergences) / 6, rel=1e-10)
    weighed = sum(u * d for u, d in zip(weights, divergences, strict=True)) / 6
    assert wttm_loss(student, teacher, gamma).item() == pytest.approx(weighed, rel=1e-10)


@both
def test_gamma_1_is_plain_kd_at_temperature_1(loss):
    student, teacher, _ = case()
    torch.testing.assert_close(loss(student, teacher, 1.0), kd_loss(student, teacher, 1.0), rtol=1e-12, atol=0)


def test_the_student_keeps_its_temperature():
    """KD divides both networks' logits by T. TTM is KD, over T^2, of a student whose logits are T times as large."""
    student, teacher, _ = case()
    expected = kd_loss(4 * student, teacher, 4.0) / 16
    torch.testing.assert_close(ttm_loss(student, teacher, 0.25), expected, rtol=1e-12, atol=0)


@both
def test_the_minimum_is_the_teacher_softened(loss):
    student, teacher, _ = case()
    softened = (0.1 * teacher + 3).requires_grad_()
    assert loss(softened, teacher, 0.1).item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(loss(softened, teacher, 0.1), softened)[0].abs().max() < 1e-12
    assert loss(student, teacher, 0.1) > 1e-2


def test_a_surer_teacher_has_the_smaller_weight():
    """U is from 1 (one-hot) to C^(1 - gamma) (uniform)."""
    student = case(batch=1)[0]
    for teacher, weight in ((torch.tensor([[1e3, 0, 0, 0, 0]]), 1.0), (torch.zeros(1, 5), 5**0.8)):
        teacher = teacher.double()
        assert wttm_loss(student, teacher) / ttm_loss(student, teacher, 0.2) == pytest.approx(weight, rel=1e-12)


def test_classes_whose_probability_rounds_to_zero_keep_their_order():
    """softmax gives 0 to three classes; a power of 0 is 0, though softmax(0.001 z) gives them 0.13, 0.20 and 0.24."""
    teacher = torch.tensor([[1000.0, 0.0, 400.0, 600.0]])
    assert (teacher.softmax(1) == 0).sum() == 3
    student = 0.001 * teacher
    assert ttm_loss(student, teacher, 0.001).item() == pytest.approx(0, abs=1e-6)
    exact = sum(math.exp(0.001 * (z - 1000)) for z in teacher[0].tolist())
    other = torch.zeros(1, 4)
    ratio = wttm_loss(other, teacher, 0.001) / ttm_loss(other, teacher, 0.001)
    assert ratio.item() == pytest.approx(exact, rel=1e-5)


@both
def test_gradcheck_in_float64(loss):
    student, teacher, _ = case()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())


@both
@hard_cases
@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_gaps_stay_finite_and_right(loss, dtype, gap, gamma):
    assert min(at_a_gap(lambda s, t, _: loss(s, t, gamma), dtype, gap)) > 100


@both
def test_a_batch_of_one_and_a_single_class(loss):
    student, teacher, _ = case(batch=1)
    assert loss(student, teacher).item() > 0
    assert loss(torch.ones(3, 1), torch.zeros(3, 1)).item() == 0


@both
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(4, 10\).*\(4, 100\)"):
        loss(torch.zeros(4, 10), torch.zeros(4, 100))


@pytest.mark.parametrize(("name", "loss"), [("ttm", ttm_loss), ("wttm", wttm_loss)])
def test_terms_are_weighted(name, loss):
    student, teacher, labels = case(dtype=torch.float32)
    terms = terms_of(METHODS[name](gamma=0.3, ce_weight=0.5, kd_weight=7.0))
    torch.testing.assert_close(terms["ce"], 0.5 * F.cross_entropy(student, labels))
    torch.testing.assert_close(terms["kd"], 7 * loss(student, teacher, 0.3))
    torch.testing.assert_close(terms_of(METHODS[name]())["ce"], F.cross_entropy(student, labels))


@pytest.mark.parametrize("name", ["gamma", "ce_weight", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["ttm"](**{name: -1})


@pytest.mark.parametrize("name", ["ttm", "wttm"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, name, precision):
    first, second = train(name, data, precision)
    assert second["kd"] < first["kd"]

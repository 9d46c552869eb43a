import math

import pytest
import torch
import torch.nn.functional as F
from logit_cases import at_a_gap, case, hard_cases, softmax, terms_of, train

from kdhelpers.methods import METHODS, Context, dkd_loss, rld_loss
from kdhelpers.methods.rld import ranked_below, refined_divergences
from kdhelpers.models import Outputs


def kl(first, second):
    return sum(p * math.log(p / q) for p, q in zip(first, second, strict=True))


def naive(student, teacher, labels, temperature):
    """Both parts of each image, in Python floats, from the paper's definitions."""
    rows = []
    for z_s, z_t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        p_s, p_t = softmax(z_s, temperature), softmax(z_t, temperature)
        confidence = kl([max(p_t), 1 - max(p_t)], [p_s[y], 1 - p_s[y]])
        kept = [c for c in range(len(z_t)) if z_t[c] < z_t[y]]
        q_s, q_t = ([p[c] / sum(p[k] for k in kept) for c in kept] for p in (p_s, p_t))
        rows.append((confidence, kl(q_t, q_s)))
    return torch.tensor(rows, dtype=torch.float64).unbind(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_both_parts_equal_the_definition(temperature):
    student, teacher, labels = case(batch=20)
    kept = ranked_below(teacher, labels).sum(1)
    assert {0, 1, 2, 3, 4} <= set(kept.tolist()), "the label at every rank of the teacher"
    for got, expected in zip(
        refined_divergences(student, teacher, labels, temperature),
        naive(student, teacher, labels, temperature),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_the_loss_is_their_weighted_mean_times_the_squared_temperature():
    student, teacher, labels = case()
    confidence, correlation = naive(student, teacher, labels, 3.0)
    expected = 9 * (0.5 * confidence + 6 * correlation).mean().item()
    assert rld_loss(student, teacher, labels, 0.5, 6.0, 3.0).item() == pytest.approx(expected, rel=1e-10)


def test_of_a_teacher_that_is_right_it_is_dkd():
    student, teacher, _ = case()
    right = teacher.argmax(1)
    torch.testing.assert_close(rld_loss(student, teacher, right), dkd_loss(student, teacher, right))


def test_a_false_class_of_the_teacher_changes_nothing_but_its_sureness():
    """Its classes above the label are left out: exchanged, or of another order, they give the same loss."""
    student = torch.tensor([[1.0, 2.0, -1.0, 0.5, 3.0]], dtype=torch.float64)
    label = torch.tensor([2])
    one, other = torch.tensor([[[5.0, 7.0, 4.0, 1.0, 2.0]], [[7.0, 5.0, 4.0, 1.0, 2.0]]], dtype=torch.float64)
    assert rld_loss(student, one, label) == rld_loss(student, other, label)
    student[0, :2] = student[0, [1, 0]]
    assert rld_loss(student, one, label) == rld_loss(student, other, label)
    assert dkd_loss(student, one, label) != dkd_loss(student, other, label)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_an_empty_rest_gives_zero_without_gradient(dtype):
    """The teacher ranks the label last; all its logits are equal; a class ties with the label."""
    student = case(batch=3, classes=3, dtype=dtype)[0].requires_grad_()
    teacher = torch.tensor([[1.0, 2.0, 0.0], [4.0, 4.0, 4.0], [1.0, 0.0, 1.0]], dtype=dtype)
    confidence, correlation = refined_divergences(student, teacher, torch.tensor([2, 0, 2]), 4.0)
    assert confidence.isfinite().all()
    assert (correlation == 0).all()
    (gradient,) = torch.autograd.grad(correlation.sum(), student)
    assert not gradient.any()


def test_equal_networks_have_no_loss_if_they_are_right():
    student, _, _ = case()
    student.requires_grad_()
    loss = rld_loss(student, student.detach() + 7, student.argmax(1))
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-12


def test_gradcheck_in_float64():
    student, teacher, labels = case()
    assert torch.autograd.gradcheck(lambda s: rld_loss(s, teacher, labels), student.requires_grad_())


@hard_cases
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gaps_stay_finite_and_right(dtype, gap, temperature):
    assert min(at_a_gap(lambda s, t, y: rld_loss(s, t, y, temperature=temperature), dtype, gap)) > 100


def test_the_order_of_the_kept_classes_is_exact_under_classes_far_above_them():
    student = torch.tensor([[1e4, 5.0, 1.0, 2.0, 4.0]])
    teacher = torch.tensor([[1e4, 5.0, 3.0, 1.0, 0.0]])
    alone = F.kl_div(student[:, 2:].log_softmax(1), teacher[:, 2:].log_softmax(1), reduction="sum", log_target=True)
    _, correlation = refined_divergences(student, teacher, torch.tensor([1]), 1.0)
    assert correlation.item() == pytest.approx(alone.item(), rel=1e-3)  # logits of 1e4 have a last digit of 1e-3


def test_one_class_and_shapes_that_differ_are_refused_before_training():
    with pytest.raises(ValueError, match=r"student_logits \(3, 1\): .* C >= 2"):
        rld_loss(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\(4, 10\).*\(4, 100\)"):
        rld_loss(torch.zeros(4, 10), torch.zeros(4, 100), torch.zeros(4, dtype=torch.long))
    one = Outputs(torch.zeros(2, 1), None, {})
    with pytest.raises(ValueError, match="C >= 2"):
        METHODS["rld"]().build(Context(one, one, None, None, 1))


def test_terms_are_weighted():
    student, teacher, labels = case(dtype=torch.float32)
    confidence, correlation = naive(student, teacher, labels, 2.0)
    terms = terms_of(METHODS["rld"](alpha=0.5, beta=6.0, temperature=2.0, ce_weight=0.3, warmup_epochs=10), epoch=4)
    assert terms["ce"].item() == pytest.approx(0.3 * F.cross_entropy(student, labels).item(), rel=1e-5)
    assert terms["confidence"].item() == pytest.approx(0.4 * 4 * 0.5 * confidence.mean().item(), rel=1e-4)
    assert terms["correlation"].item() == pytest.approx(0.4 * 4 * 6.0 * correlation.mean().item(), rel=1e-4)


@pytest.mark.parametrize("name", ["alpha", "beta", "temperature", "ce_weight", "warmup_epochs"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["rld"](**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, precision):
    first, second = train("rld", data, precision)
    assert second["ce"] < first["ce"]  # the other terms have twice the weight in the second epoch

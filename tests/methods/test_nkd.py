import math

import pytest
import torch
import torch.nn.functional as F
from logit_cases import at_a_gap, case, hard_cases, softmax, terms_of, train

from kdhelpers.methods import METHODS, Context, nkd_loss
from kdhelpers.methods.nkd import normalized_cross_entropies
from kdhelpers.models import Outputs


def naive(student, teacher, labels, temperature):
    """Both parts of each image, in Python floats, from the paper's definitions."""
    rows = []
    for z_s, z_t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        target = -softmax(z_t)[y] * math.log(softmax(z_s)[y])
        q_s, q_t = softmax(z_s[:y] + z_s[y + 1 :], temperature), softmax(z_t[:y] + z_t[y + 1 :], temperature)
        rows.append((target, -sum(t * math.log(s) for t, s in zip(q_t, q_s, strict=True))))
    return torch.tensor(rows, dtype=torch.float64).unbind(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_both_parts_equal_the_definition(temperature):
    student, teacher, labels = case()
    for got, expected in zip(
        normalized_cross_entropies(student, teacher, labels, temperature),
        naive(student, teacher, labels, temperature),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_the_loss_is_their_sum_with_gamma_and_the_squared_temperature_at_the_second():
    student, teacher, labels = case()
    target, others = naive(student, teacher, labels, 3.0)
    expected = (target + 2.5 * 9 * others).mean().item()
    assert nkd_loss(student, teacher, labels, 2.5, 3.0).item() == pytest.approx(expected, rel=1e-10)


def test_equal_networks_have_the_entropy_as_loss_and_only_the_labels_part_has_a_gradient():
    """Cross-entropy, not a divergence: -p_y log p_y + gamma H(q) is left, and p_y is pulled to 1."""
    student, _, labels = case()
    student.requires_grad_()
    target, others = normalized_cross_entropies(student, student.detach(), labels, 2.0)
    q = student.detach()[~F.one_hot(labels, 5).bool()].view(6, 4).div(2).softmax(1)
    torch.testing.assert_close(others.detach(), torch.special.entr(q).sum(1))
    assert torch.autograd.grad(others.sum(), student, retain_graph=True)[0].abs().max() < 1e-12
    assert nkd_loss(student, student.detach(), labels).item() > 0.1
    p = student.detach().softmax(1)
    pull = p.gather(1, labels[:, None]) * (p - F.one_hot(labels, 5))
    torch.testing.assert_close(torch.autograd.grad(target.sum(), student)[0], pull)


def test_a_sure_teacher_adds_the_cross_entropy_of_the_label():
    student, _, labels = case()
    sure = 1e3 * F.one_hot(labels, 5).double()
    torch.testing.assert_close(nkd_loss(student, sure, labels, 0.0), F.cross_entropy(student, labels))


def test_the_labels_logit_has_no_part_in_the_distribution_over_the_others():
    student, teacher, labels = case(batch=1)
    moved = student.clone()
    moved[0, 0] += 5
    (_, others), (_, after) = (normalized_cross_entropies(z, teacher, labels, 2.0) for z in (student, moved))
    assert others == after


def test_gradcheck_in_float64():
    student, teacher, labels = case()
    assert torch.autograd.gradcheck(lambda s: nkd_loss(s, teacher, labels, 1.5, 3.0), student.requires_grad_())


@hard_cases
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gaps_stay_finite_and_right(dtype, gap, temperature):
    assert min(at_a_gap(lambda s, t, y: nkd_loss(s, t, y, temperature=temperature), dtype, gap)) > 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_of_two_classes_one_is_left_so_its_part_is_exactly_zero(dtype):
    student, teacher, labels = case(batch=1, classes=2, dtype=dtype)
    _, others = normalized_cross_entropies(student.requires_grad_(), teacher, labels)
    assert others.item() == 0
    assert not torch.autograd.grad(others.sum(), student)[0].any()


def test_one_class_and_shapes_that_differ_are_refused_before_training():
    with pytest.raises(ValueError, match=r"student_logits \(3, 1\): .* C >= 2"):
        nkd_loss(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\(4, 10\).*\(4, 100\)"):
        nkd_loss(torch.zeros(4, 10), torch.zeros(4, 100), torch.zeros(4, dtype=torch.long))
    one = Outputs(torch.zeros(2, 1), None, {})
    with pytest.raises(ValueError, match="C >= 2"):
        METHODS["nkd"]().build(Context(one, one, None, None, 1))


def test_terms_are_weighted():
    student, teacher, labels = case(dtype=torch.float32)
    target, others = naive(student, teacher, labels, 3.0)
    terms = terms_of(METHODS["nkd"](gamma=2.5, temperature=3.0, ce_weight=0.3, kd_weight=0.7))
    assert terms["ce"].item() == pytest.approx(0.3 * F.cross_entropy(student, labels).item(), rel=1e-5)
    assert terms["target"].item() == pytest.approx(0.7 * target.mean().item(), rel=1e-4)
    assert terms["others"].item() == pytest.approx(0.7 * 2.5 * 9 * others.mean().item(), rel=1e-4)


@pytest.mark.parametrize("name", ["gamma", "temperature", "ce_weight", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["nkd"](**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, precision):
    first, second = train("nkd", data, precision)
    assert second["ce"] < first["ce"]

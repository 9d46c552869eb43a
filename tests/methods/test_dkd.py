import math

import pytest
import torch
import torch.nn.functional as F

from kdhelpers.methods import kd_loss
from kdhelpers.methods.dkd import DecoupledKD, decoupled_divergences, dkd_loss
from kdhelpers.models import Outputs


def naive(student, teacher, labels, temperature):
    """TCKD and NCKD of each image, in Python floats, from the paper's definitions of b and p-hat."""
    rows = []
    for z_s, z_t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        e_s, e_t = [math.exp(z / temperature) for z in z_s], [math.exp(z / temperature) for z in z_t]
        p_s, p_t = e_s[y] / sum(e_s), e_t[y] / sum(e_t)
        target = p_t * math.log(p_t / p_s) + (1 - p_t) * math.log((1 - p_t) / (1 - p_s))
        rest_s, rest_t = sum(e_s) - e_s[y], sum(e_t) - e_t[y]
        others = 0.0
        for c in range(len(z_s)):
            if c != y:
                others += e_t[c] / rest_t * math.log((e_t[c] / rest_t) / (e_s[c] / rest_s))
        rows.append((target, others))
    return torch.tensor(rows, dtype=torch.float64).unbind(1)


def case(batch=6, classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, batch, classes, generator=generator, dtype=dtype).mul(3).unbind()
    return student, teacher, torch.arange(batch) % classes  # the label is each class once: first, last, between


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_both_parts_equal_the_definition(temperature):
    student, teacher, labels = case()
    for got, expected in zip(
        decoupled_divergences(student, teacher, labels, temperature),
        naive(student, teacher, labels, temperature),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_the_loss_is_their_weighted_mean_times_the_squared_temperature():
    student, teacher, labels = case()
    target, others = naive(student, teacher, labels, 3.0)
    expected = 9 * (0.5 * target + 6 * others).mean().item()
    assert dkd_loss(student, teacher, labels, 0.5, 6.0, 3.0).item() == pytest.approx(expected, rel=1e-10)


def test_the_parts_add_up_to_plain_kd():
    """KD = TCKD + (1 - p_t,y) NCKD, equation 6."""
    student, teacher, labels = case()
    target, others = decoupled_divergences(student, teacher, labels, 4.0)
    confidence = (teacher / 4).softmax(1).gather(1, labels[:, None])[:, 0]
    expected = 16 * (target + (1 - confidence) * others).mean()
    torch.testing.assert_close(kd_loss(student, teacher, 4.0), expected, rtol=1e-10, atol=0)


def test_equal_networks_have_no_loss_and_no_gradient():
    student, _, labels = case()
    student.requires_grad_()
    loss = dkd_loss(student, student.detach() + 7, labels)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-12


def test_each_part_sees_only_its_own_difference():
    """The other classes permuted: same confidence, TCKD 0. The label's logit moved: same ranking, NCKD 0."""
    student, _, labels = case(batch=1)
    permuted, moved = student.clone()[:, [0, 2, 3, 4, 1]], student.clone()
    moved[0, 0] += 2
    target, others = decoupled_divergences(student, permuted, labels)
    assert abs(target.item()) < 1e-12 < 1e-3 < others.item()
    target, others = decoupled_divergences(student, moved, labels)
    assert abs(others.item()) < 1e-12 < 1e-3 < target.item()


def test_gradcheck_in_float64():
    student, teacher, labels = case()
    assert torch.autograd.gradcheck(lambda s: dkd_loss(s, teacher, labels), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gaps_of_ten_thousand_stay_finite_and_right(dtype, label, temperature):
    """The label on top, at the bottom, between: log(softmax) would be -inf, and its gradient NaN."""
    student = torch.tensor([[1e4, 0.0, -1e4, 3.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 0.0, 1e4, 5.0]], dtype=dtype)
    labels = torch.tensor([label])
    loss = dkd_loss(student, teacher, labels, temperature=temperature)
    loss.backward()
    exact = dkd_loss(student.detach().double(), teacher.double(), labels, temperature=temperature)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)
    assert loss.item() > 1e3
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() > 0.5


def test_the_ranking_of_the_others_is_exact_under_a_very_sure_network():
    """Both networks sure of the label by 1e4: NCKD is still that of the other classes alone."""
    student, teacher = torch.tensor([[1e4, 1.0, 2.0, 4.0]]), torch.tensor([[1e4, 3.0, 1.0, 0.0]])
    alone = F.kl_div(student[:, 1:].log_softmax(1), teacher[:, 1:].log_softmax(1), reduction="sum", log_target=True)
    target, others = decoupled_divergences(student, teacher, torch.tensor([0]), 1.0)
    assert others.item() == pytest.approx(alone.item(), rel=1e-6)
    assert target.item() == 0


def test_a_common_offset_of_the_logits_changes_nothing():
    student, teacher, labels = case(dtype=torch.float32)
    student = student.mul(256).round() / 256  # so that adding 1024 is exact in float32
    shifted = dkd_loss(student + 1024, teacher, labels)
    assert shifted.item() == pytest.approx(dkd_loss(student, teacher, labels).item(), rel=1e-6)


def test_of_two_classes_one_is_left_so_its_part_is_exactly_zero():
    student, teacher, labels = case(classes=2, dtype=torch.float32)
    target, others = decoupled_divergences(student, teacher, labels)
    assert (others == 0).all()
    assert 16 * target.mean().item() == pytest.approx(kd_loss(student, teacher).item(), rel=1e-5)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=r"student_logits \(3, 1\): .* C >= 2"):
        dkd_loss(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 10\).*\(4, 100\)"):
        dkd_loss(torch.zeros(4, 10), torch.zeros(4, 100), torch.zeros(4, dtype=torch.long))


class OneView:
    """A batch as the loop makes it, with the 'images' being logits."""

    def __init__(self, view, labels):
        self.views, self.labels = (view,), labels


def terms_of(method, epoch=1):
    student, teacher, labels = case(dtype=torch.float32)
    return method(
        lambda view: Outputs(view, None, {}), lambda view: Outputs(teacher, None, {}), OneView(student, labels), epoch
    )


def test_terms_are_weighted():
    student, teacher, labels = case(dtype=torch.float32)
    target, others = naive(student, teacher, labels, 2.0)
    method = DecoupledKD(alpha=0.5, beta=6.0, temperature=2.0, ce_weight=0.3, warmup_epochs=10)
    terms = terms_of(method, epoch=4)
    assert terms["ce"].item() == pytest.approx(0.3 * F.cross_entropy(student, labels).item(), rel=1e-5)
    assert terms["tckd"].item() == pytest.approx(0.4 * 4 * 0.5 * target.mean().item(), rel=1e-4)
    assert terms["nckd"].item() == pytest.approx(0.4 * 4 * 6.0 * others.mean().item(), rel=1e-4)


def test_after_the_warm_up_the_terms_sum_to_cross_entropy_and_the_loss():
    student, teacher, labels = case(dtype=torch.float32)
    terms = terms_of(DecoupledKD(), epoch=20)
    expected = F.cross_entropy(student, labels) + dkd_loss(student, teacher, labels)
    torch.testing.assert_close(terms["ce"] + terms["tckd"] + terms["nckd"], expected)


@pytest.mark.parametrize("name", ["alpha", "beta", "temperature", "ce_weight", "warmup_epochs"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        DecoupledKD(**{name: -1})

import math
import statistics

import pytest
import torch
import torch.nn.functional as F
from logit_cases import at_a_gap, case, hard_cases, softmax, terms_of, train

from kdhelpers.methods import METHODS, kd_loss, luminet_loss
from kdhelpers.methods.luminet import perception


def naive_perception(logits):
    """Each class over the batch, in Python floats: the population's variance, plus 1e-5."""
    columns = []
    for column in zip(*logits.tolist(), strict=True):
        deviation = (statistics.pvariance(column) + 1e-5) ** 0.5
        columns.append([(z - statistics.mean(column)) / deviation for z in column])
    return [list(row) for row in zip(*columns, strict=True)]


def naive(student, teacher, alpha, temperature):
    total = 0.0
    for h_s, h_t in zip(naive_perception(student), naive_perception(teacher), strict=True):
        p_s, p_t = softmax(h_s, temperature), softmax(h_t, temperature)
        total += sum(t * math.log(t / s) for t, s in zip(p_t, p_s, strict=True))
    return alpha**2 * total / len(student)


def test_each_class_is_standardised_over_the_batch():
    logits = case()[0] * 0.01  # so small that the 1e-5 counts
    torch.testing.assert_close(perception(logits), torch.tensor(naive_perception(logits), dtype=torch.float64))
    expected = F.batch_norm(logits, None, None, training=True, eps=1e-5)
    torch.testing.assert_close(perception(logits), expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [1.0, 33.0])
def test_equals_the_definition(alpha, temperature):
    student, teacher, _ = case()
    expected = naive(student, teacher, alpha, temperature)
    assert luminet_loss(student, teacher, alpha, temperature).item() == pytest.approx(expected, rel=1e-10)


def test_alpha_takes_the_place_of_the_temperatures_factor():
    student, teacher, _ = case()
    expected = kd_loss(perception(student), perception(teacher), 4.0)
    torch.testing.assert_close(luminet_loss(student, teacher, alpha=4.0, temperature=4.0), expected)


def test_a_single_image_gives_zero_without_gradient():
    student, teacher, _ = case(batch=1)
    loss = luminet_loss(student.requires_grad_(), teacher)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, student)[0].any()


def test_a_scale_and_an_offset_of_each_class_change_nothing():
    """Over the batch, not within an image: an offset per image, free in KD, does change it."""
    student, teacher, _ = case()
    moved = student * torch.tensor([0.5, 1.0, 2.0, 30.0, 7.0]) + torch.arange(5)
    expected = luminet_loss(student, teacher).item()
    assert luminet_loss(moved, teacher).item() == pytest.approx(expected, rel=1e-4)
    assert luminet_loss(student + torch.arange(6)[:, None], teacher).item() != pytest.approx(expected, rel=0.01)
    assert luminet_loss(2 * teacher + 5, teacher).item() == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_student_with_equal_logits_in_all_images_is_finite(dtype):
    _, teacher, _ = case(dtype=dtype)
    student = torch.full((6, 5), 100.1, dtype=dtype, requires_grad=True)
    loss = luminet_loss(student, teacher, 1.0, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(luminet_loss(torch.zeros(6, 5), teacher, 1.0, 1.0).item(), rel=1e-3)
    assert student.grad.abs().max() < 1e-5**-0.5


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 2000.0), (torch.bfloat16, 1e4), (torch.float16, 1e4)])
def test_equal_images_have_no_perception_however_large_their_logits(dtype, largest):
    logits = (torch.rand(1, 50, generator=torch.Generator().manual_seed(0)) * 2 - 1).mul(largest).to(dtype)
    assert not perception(logits.expand(7, -1)).any(), "the mean of 7 equal numbers is rounded"


def test_gradcheck_in_float64():
    student, teacher, _ = case()
    assert torch.autograd.gradcheck(lambda s: luminet_loss(s, teacher, 3.0, 2.0), student.requires_grad_())


@hard_cases
@pytest.mark.parametrize("temperature", [0.01, 4.0])
def test_gaps_stay_finite_and_right(dtype, gap, temperature):
    assert min(at_a_gap(lambda s, t, _: luminet_loss(s, t, 5.0, temperature), dtype, gap)) > 0.1


def test_a_single_class_gives_zero_and_shapes_that_differ_are_refused():
    assert luminet_loss(torch.rand(3, 1), torch.rand(3, 1)).item() == 0
    with pytest.raises(ValueError, match=r"\(4, 10\).*\(4, 100\)"):
        luminet_loss(torch.zeros(4, 10), torch.zeros(4, 100))


def test_terms_are_weighted():
    student, teacher, labels = case(dtype=torch.float32)
    method = METHODS["luminet"](alpha=5.0, temperature=2.0, ce_weight=0.3, warmup_epochs=10)
    terms = terms_of(method, epoch=4)
    assert terms["ce"].item() == pytest.approx(0.3 * F.cross_entropy(student, labels).item(), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(0.4 * naive(student, teacher, 5.0, 2.0), rel=1e-4)
    torch.testing.assert_close(terms_of(METHODS["luminet"](), epoch=30)["kd"], luminet_loss(student, teacher))


@pytest.mark.parametrize("name", ["alpha", "temperature", "ce_weight", "warmup_epochs"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["luminet"](**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, precision):
    first, second = train("luminet", data, precision)
    assert second["ce"] < first["ce"]  # the other term has twice the weight in the second epoch

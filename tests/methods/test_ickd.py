"""ICKD-C against a loop, its invariances, its projector, and channels that are zero."""

import math

import pytest
import torch
from feature_fixtures import HALF, ask, assert_trains, built, ce_of, draw

from kdhelpers import METHODS
from kdhelpers.methods import kd_loss
from kdhelpers.methods.ickd import correlations, ickd_loss


def naive_rows(one):
    """The correlations of one image's channels, each row over its norm, in Python floats."""
    channels = one.flatten(1).tolist()
    for a in channels:
        row = [sum(x * y for x, y in zip(a, b, strict=True)) for b in channels]
        length = math.sqrt(sum(value * value for value in row))
        yield [value / length if length else 0.0 for value in row]


def naive(student, teacher):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        for row_s, row_t in zip(naive_rows(s), naive_rows(t), strict=True):
            total += sum((a - b) ** 2 for a, b in zip(row_s, row_t, strict=True))
    return total / student.shape[0] / student.shape[1]


def case():
    """Sizes differ."""
    return draw(3, 5, 2, 4), draw(3, 5, 3, 3, seed=1)


def test_it_is_the_loop():
    assert ickd_loss(*case()).item() == pytest.approx(naive(*case()), rel=1e-12)


def test_two_channels_by_hand():
    """Channels (1, 0) and (1, 1): products 1, 1 and 1, 2."""
    rows = correlations(torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]]).double())[0]
    expected = torch.tensor([[1 / math.sqrt(2), 1 / math.sqrt(2)], [1 / math.sqrt(5), 2 / math.sqrt(5)]]).double()
    torch.testing.assert_close(rows, expected)


def test_other_pixels_of_the_same_length_and_angle_change_nothing():
    """Correlations sum over pixels: neither their order nor a common factor counts."""
    teacher = draw(3, 5, 2, 2)
    student = (7 * teacher.flip(3)).requires_grad_()
    loss = ickd_loss(student, teacher)
    loss.backward()
    assert loss.item() < 1e-20
    assert student.grad.abs().max() < 1e-9


def test_the_order_of_the_channels_counts():
    teacher = draw(3, 5, 2, 2)
    assert ickd_loss(teacher.roll(1, 1), teacher).item() > 0.1


def test_gradcheck_in_float64():
    student, teacher = case()
    assert torch.autograd.gradcheck(lambda s: ickd_loss(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("zero", [1, 5])
def test_a_channel_of_zeros_gets_no_gradient_of_its_own_row(zero):
    """As after a ReLU that no pixel passes. F.normalize would multiply its gradient by 1e12."""
    student, teacher = draw(3, 5, 2, 2, dtype=torch.float32), draw(3, 5, 2, 2, seed=1, dtype=torch.float32)
    student[0, :zero] = 0
    expected = naive(student, teacher)
    student.requires_grad_()
    loss = ickd_loss(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert student.grad.abs().max() < 10
    if zero == 5:
        assert student.grad[0].abs().max() == 0


def test_one_image_with_one_channel_has_no_loss():
    student = draw(1, 1, 2, 2).requires_grad_()
    loss = ickd_loss(student, draw(1, 1, 2, 2, seed=1))
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_half_types_are_computed_in_float32(dtype, scale):
    student, teacher = ((scale * x).to(dtype) for x in case())
    exact = ickd_loss(student.double(), teacher.double()).item()
    student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = ickd_loss(student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-4)
    assert student.grad.isfinite().all()


def test_channels_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3, 2, 2\), teacher_map \(4, 5, 2, 2\).*1x1 convolution"):
        ickd_loss(torch.zeros(4, 3, 2, 2), torch.zeros(4, 5, 2, 2))


def test_the_projector_has_the_teachers_channels_and_no_bias():
    convolution, norm = built("ickd", "vgg8", "resnet8x4").projector
    assert convolution.weight.shape == (256, 512, 1, 1)
    assert convolution.bias is None
    assert isinstance(norm, torch.nn.BatchNorm2d)


@pytest.mark.parametrize("kd_weight", [0.0, 3.0])
def test_the_last_maps_of_both_networks_are_compared_and_terms_are_weighted(kd_weight):
    options = {"kd_weight": kd_weight, "kd_temperature": 2.0}
    method = built("ickd", "vgg8", "resnet8", ce_weight=0.2, ickd_weight=10.0, **options)
    terms, student, teacher = ask(method, "vgg8", "resnet8")
    projected = method.projector(student.feature_maps["block4"]).double()
    assert terms["ce"].item() == pytest.approx(0.2 * ce_of(student.logits))
    expected = naive(projected, teacher.feature_maps["layer3"].double())
    assert terms["ickd"].item() == pytest.approx(10 * expected, rel=1e-3)
    assert ("kd" in terms) == bool(kd_weight)
    if kd_weight:
        assert terms["kd"].item() == pytest.approx(3 * kd_loss(student.logits, teacher.logits, 2.0).item())


@pytest.mark.parametrize("name", ["ce_weight", "ickd_weight", "kd_weight", "kd_temperature"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["ickd"](**{name: -1})


@pytest.mark.parametrize(("precision", "kd_weight", "terms"), [("fp32", 0.0, ["ickd"]), ("fp16", 1.0, ["ickd", "kd"])])
def test_it_trains(root, data, precision, kd_weight, terms):
    assert_trains(data, "ickd", precision, *terms, kd_weight=kd_weight)

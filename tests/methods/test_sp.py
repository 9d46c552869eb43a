"""SP against a loop, its invariances, and maps that are zero."""

import math

import pytest
import torch
from feature_fixtures import HALF, ask, assert_trains, built, ce_of, draw

from kdhelpers import METHODS
from kdhelpers.methods import Context
from kdhelpers.methods.sp import image_similarities, sp_loss
from kdhelpers.models import Outputs


def naive(student, teacher):
    """The paper's definition, in Python floats."""
    total, count = 0.0, len(student)
    for i in range(count):
        rows = []
        for maps in (student.flatten(1).tolist(), teacher.flatten(1).tolist()):
            row = [sum(a * b for a, b in zip(maps[i], other, strict=True)) for other in maps]
            length = math.sqrt(sum(value * value for value in row))
            rows.append([value / length for value in row])
        total += sum((s - t) ** 2 for s, t in zip(*rows, strict=True))
    return total / count**2


def case():
    """Channels and sizes differ."""
    return draw(5, 3, 4, 2), draw(5, 6, 2, 2, seed=1)


def test_it_is_the_loop():
    assert sp_loss(*case()).item() == pytest.approx(naive(*case()), rel=1e-12)


def test_two_images_by_hand():
    """Vectors (1, 0) and (1, 1): products 1, 1 in the first row, 1, 2 in the second."""
    expected = torch.tensor([[1 / math.sqrt(2), 1 / math.sqrt(2)], [1 / math.sqrt(5), 2 / math.sqrt(5)]]).double()
    torch.testing.assert_close(image_similarities(torch.tensor([[1.0, 0], [1, 1]]).double()), expected)


def test_a_turned_and_stretched_copy_has_no_loss_and_no_gradient():
    teacher = draw(6, 3)
    turn, _ = torch.linalg.qr(draw(3, 3, seed=2))
    student = (7 * teacher @ turn).requires_grad_()
    loss = sp_loss(student, teacher)
    loss.backward()
    assert loss.item() < 1e-20
    assert student.grad.abs().max() < 1e-9


def test_gradcheck_in_float64():
    student, teacher = case()
    assert torch.autograd.gradcheck(lambda s: sp_loss(s, teacher), student.requires_grad_())


def test_one_image_gives_zero_and_no_gradient():
    student = draw(1, 3, 2, 2).requires_grad_()
    loss = sp_loss(student, draw(1, 4, 2, 2, seed=1))
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() < 1e-12


@pytest.mark.parametrize("zero", [1, 5])
def test_a_map_of_zeros_gets_no_gradient(zero):
    """As after a ReLU that no pixel passes. F.normalize would multiply its gradient by 1e12."""
    student, teacher = draw(5, 3, 2, 2, dtype=torch.float32), draw(5, 4, 2, 2, seed=1, dtype=torch.float32)
    student[:zero] = 0
    student.requires_grad_()
    loss = sp_loss(student, teacher)
    loss.backward()
    assert loss.isfinite()
    assert (image_similarities(student)[0] == 0).all()
    assert student.grad.abs().max() < 10
    if zero == 5:
        assert student.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_half_types_are_computed_in_float32(dtype, scale):
    student, teacher = ((scale * x).to(dtype) for x in case())
    exact = sp_loss(student.double(), teacher.double()).item()
    student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = sp_loss(student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-4)
    assert student.grad.isfinite().all()


def test_batches_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 12\), teacher_map \(5, 12\).*same images"):
        sp_loss(torch.zeros(4, 3, 2, 2), torch.zeros(5, 3, 2, 2))


def test_the_last_maps_of_both_networks_are_compared_and_terms_are_weighted():
    method = built("sp", "vgg8", "resnet8x4", ce_weight=0.2, kd_weight=10.0)
    terms, student, teacher = ask(method, "vgg8")
    expected = naive(student.feature_maps["block4"].double(), teacher.feature_maps["layer3"].double())
    assert terms["ce"].item() == pytest.approx(0.2 * ce_of(student.logits))
    assert terms["sp"].item() == pytest.approx(10 * expected, rel=1e-4)


def test_a_network_without_maps_is_refused():
    outputs = Outputs(None, None, {})
    with pytest.raises(ValueError, match="feature_maps: a network names no feature maps; give its Architecture"):
        METHODS["sp"]().build(Context(outputs, outputs, None, None, 10))


@pytest.mark.parametrize("name", ["ce_weight", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["sp"](**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, precision):
    assert_trains(data, "sp", precision, "sp")

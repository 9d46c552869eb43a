"""AT against a loop, its invariances, maps of other sizes, and maps that are zero."""

import math

import pytest
import torch
from feature_fixtures import HALF, ask, assert_trains, built, ce_of, draw

from kdhelpers import METHODS
from kdhelpers.methods.at import at_loss, attention


def naive_attention(one, exponent):
    """Q of one image's map [c, h, w], in Python floats."""
    channels = one.flatten(1).tolist()
    sums = [sum(abs(value) ** exponent for value in pixel) for pixel in zip(*channels, strict=True)]
    length = math.sqrt(sum(value * value for value in sums))
    return [value / length for value in sums]


def naive_layer(student, teacher, exponent=2):
    total = count = 0
    for s, t in zip(student, teacher, strict=True):
        for a, b in zip(naive_attention(s, exponent), naive_attention(t, exponent), strict=True):
            total, count = total + (a - b) ** 2, count + 1
    return total / count


def quarters(maps):
    """The means of 2x2 pixels, pixel by pixel."""
    pooled = torch.zeros(*maps.shape[:2], maps.shape[2] // 2, maps.shape[3] // 2, dtype=maps.dtype)
    for i in range(pooled.shape[2]):
        for j in range(pooled.shape[3]):
            pooled[:, :, i, j] = maps[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].sum((2, 3)) / 4
    return pooled


def case():
    """Two layers: the student's first map is twice as large, in the second the teacher's; channels differ."""
    return [draw(3, 2, 4, 4), draw(3, 5, 2, 2)], [draw(3, 4, 2, 2, seed=1), draw(3, 6, 4, 4, seed=2)]


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_it_is_the_loop_with_the_larger_map_pooled_first(exponent):
    (first, second), (teacher_first, teacher_second) = student, teacher = case()
    expected = naive_layer(quarters(first), teacher_first, exponent)
    expected += naive_layer(second, quarters(teacher_second), exponent)
    assert at_loss(student, teacher, exponent).item() == pytest.approx(expected, rel=1e-12)


def test_the_papers_norm_of_the_difference_is_a_constant_factor_away():
    student, teacher = draw(3, 2, 4, 4), draw(3, 5, 4, 4, seed=1)
    papers = (attention(student) - attention(teacher)).square().sum(1).mean()
    assert papers.item() == pytest.approx(16 * at_loss([student], [teacher]).item())


def test_other_signs_lengths_and_order_of_channels_change_nothing():
    teacher = draw(3, 4, 2, 2)
    student = (-5 * teacher[:, [2, 0, 3, 1]]).requires_grad_()
    loss = at_loss([student], [teacher])
    loss.backward()
    assert loss.item() < 1e-20
    assert student.grad.abs().max() < 1e-9


def test_a_pixel_by_hand():
    """Channels (3, 0) and (4, 1) at two pixels: 25 and 1."""
    one = torch.tensor([[[[3.0, 0.0]], [[4.0, 1.0]]]]).double()
    assert attention(one)[0].tolist() == pytest.approx([25 / math.hypot(25, 1), 1 / math.hypot(25, 1)])


@pytest.mark.parametrize("exponent", [2, 3])
def test_gradcheck_in_float64(exponent):
    student, teacher = case()
    inputs = [one.requires_grad_() for one in student]
    assert torch.autograd.gradcheck(lambda *maps: at_loss(maps, teacher, exponent), inputs)


@pytest.mark.parametrize("zero", [1, 3])
def test_a_map_of_zeros_gets_no_gradient(zero):
    """As after a ReLU that no pixel passes. F.normalize would multiply its gradient by 1e12."""
    student, teacher = draw(3, 2, 2, 2, dtype=torch.float32), draw(3, 4, 2, 2, seed=1, dtype=torch.float32)
    student[:zero] = 0
    student.requires_grad_()
    loss = at_loss([student], [teacher], exponent=1)
    loss.backward()
    assert loss.isfinite()
    assert (student.grad[:zero] == 0).all()
    assert student.grad.abs().max() < 10


def test_one_image_of_one_pixel_has_no_loss():
    student = draw(1, 3, 1, 1).requires_grad_()
    loss = at_loss([student], [draw(1, 4, 1, 1, seed=1)])
    loss.backward()
    assert loss.item() < 1e-20
    assert student.grad.abs().max() < 1e-9


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_half_types_are_computed_in_float32(dtype, scale):
    student, teacher = ([(scale * x).to(dtype) for x in maps] for maps in case())
    exact = at_loss([x.double() for x in student], [x.double() for x in teacher]).item()
    leaves = [x.requires_grad_() for x in student]
    with torch.autocast("cpu", torch.bfloat16):
        loss = at_loss(leaves, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-4)
    assert all(x.grad.isfinite().all() for x in leaves)


def test_batches_and_lists_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3, 2, 2\), teacher_map \(5, 3, 2, 2\).*same images"):
        at_loss([torch.zeros(4, 3, 2, 2)], [torch.zeros(5, 3, 2, 2)])
    with pytest.raises(ValueError, match="student_maps has 2 layers, teacher_maps 1: must have the same number"):
        at_loss([torch.zeros(4, 3, 2, 2)] * 2, [torch.zeros(4, 3, 2, 2)])
    with pytest.raises(ValueError, match="student_maps has 0 layers"):
        at_loss([], [])


def test_all_maps_but_the_first_are_compared_and_terms_are_weighted():
    terms, student, teacher = ask(built("at", ce_weight=0.2, kd_weight=10.0, exponent=3))
    maps = [[outputs.feature_maps[f"layer{i}"].double() for i in (1, 2, 3)] for outputs in (student, teacher)]
    assert terms["ce"].item() == pytest.approx(0.2 * ce_of(student.logits))
    expected = sum(naive_layer(s, t, exponent=3) for s, t in zip(*maps, strict=True))
    assert terms["at"].item() == pytest.approx(10 * expected, rel=1e-3)


def test_networks_with_other_numbers_of_maps_are_refused():
    with pytest.raises(ValueError, match="feature_maps: the student has 4 .*block4.*the teacher 3 .*layer3"):
        built("at", "vgg8", "resnet8x4")


@pytest.mark.parametrize("name", ["exponent", "ce_weight", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["at"](**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, precision):
    assert_trains(data, "at", precision, "at")

"""NST against a loop over pairs of channels, what a distance of distributions fulfils, and channels that are zero."""

import math

import pytest
import torch
from feature_fixtures import HALF, ask, assert_trains, built, ce_of, draw

from kdhelpers import METHODS
from kdhelpers.methods.nst import nst_loss


def naive_kernel(first, second):
    """Mean over images and pairs of channels of the squared cosine, in Python floats."""
    total = count = 0
    for one, other in zip(first, second, strict=True):
        for a in one.flatten(1).tolist():
            for b in other.flatten(1).tolist():
                product = sum(x * y for x, y in zip(a, b, strict=True))
                lengths = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
                total, count = total + (product / lengths if lengths else 0.0) ** 2, count + 1
    return total / count


def naive_layer(student, teacher):
    return naive_kernel(teacher, teacher) + naive_kernel(student, student) - 2 * naive_kernel(student, teacher)


def case():
    """Two layers; channels differ."""
    return [draw(3, 2, 3, 3), draw(3, 5, 2, 2)], [draw(3, 4, 3, 3, seed=1), draw(3, 6, 2, 2, seed=2)]


def test_it_is_the_loop_summed_over_layers():
    expected = sum(naive_layer(s, t) for s, t in zip(*case(), strict=True))
    assert nst_loss(*case()).item() == pytest.approx(expected, rel=1e-12)


def test_the_larger_map_is_pooled_to_the_smaller():
    student, teacher = draw(3, 2, 4, 4), draw(3, 5, 2, 2)
    pooled = student.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5))
    assert nst_loss([student], [teacher]).item() == pytest.approx(naive_layer(pooled, teacher))
    assert nst_loss([teacher], [student]).item() == pytest.approx(naive_layer(pooled, teacher))


def test_other_signs_lengths_order_and_copies_of_channels_change_nothing():
    """The distribution of the channels counts: each of them twice is the same distribution."""
    teacher = draw(3, 4, 2, 2)
    student = (-5 * teacher[:, [2, 0, 3, 1, 0, 1, 2, 3]]).requires_grad_()
    loss = nst_loss([student], [teacher])
    loss.backward()
    assert abs(loss.item()) < 1e-12
    assert student.grad.abs().max() < 1e-9


def test_one_channel_each_by_hand():
    """At 60 degrees: 1 + 1 - 2 cos^2 60 = 3/2."""
    student, teacher = torch.tensor([1.0, 0.0]), torch.tensor([0.5, math.sqrt(0.75)])
    maps = ([x.double().view(1, 1, 1, 2)] for x in (student, teacher))
    assert nst_loss(*maps).item() == pytest.approx(1.5)


def test_gradcheck_in_float64():
    student, teacher = case()
    inputs = [one.requires_grad_() for one in student]
    assert torch.autograd.gradcheck(lambda *maps: nst_loss(maps, teacher), inputs)


@pytest.mark.parametrize("zero", [1, 2])
def test_a_channel_of_zeros_gets_no_gradient(zero):
    """As after a ReLU that no pixel passes. F.normalize would multiply its gradient by 1e12."""
    student, teacher = draw(3, 2, 2, 2, dtype=torch.float32), draw(3, 4, 2, 2, seed=1, dtype=torch.float32)
    student[0, :zero] = 0
    expected = naive_layer(student, teacher)
    student.requires_grad_()
    loss = nst_loss([student], [teacher])
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert (student.grad[0, :zero] == 0).all()
    assert student.grad.abs().max() < 10


def test_one_image_of_one_pixel_has_no_loss():
    student = draw(1, 3, 1, 1).requires_grad_()
    loss = nst_loss([student], [draw(1, 4, 1, 1, seed=1)])
    loss.backward()
    assert abs(loss.item()) < 1e-12
    assert student.grad.abs().max() < 1e-9


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_half_types_are_computed_in_float32(dtype, scale):
    student, teacher = ([(scale * x).to(dtype) for x in maps] for maps in case())
    exact = nst_loss([x.double() for x in student], [x.double() for x in teacher]).item()
    leaves = [x.requires_grad_() for x in student]
    with torch.autocast("cpu", torch.bfloat16):
        loss = nst_loss(leaves, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-4)
    assert all(x.grad.isfinite().all() for x in leaves)


def test_batches_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3, 2, 2\), teacher_map \(5, 3, 2, 2\).*same images"):
        nst_loss([torch.zeros(4, 3, 2, 2)], [torch.zeros(5, 3, 2, 2)])


def test_all_maps_but_the_first_are_compared_and_terms_are_weighted():
    terms, student, teacher = ask(built("nst", ce_weight=0.2, kd_weight=10.0))
    maps = [[outputs.feature_maps[f"layer{i}"].double() for i in (1, 2, 3)] for outputs in (student, teacher)]
    assert terms["ce"].item() == pytest.approx(0.2 * ce_of(student.logits))
    expected = nst_loss(*maps).item()
    assert terms["nst"].item() == pytest.approx(10 * expected, rel=1e-3)


def test_networks_with_other_numbers_of_maps_are_refused():
    with pytest.raises(ValueError, match="feature_maps: the student has 4 .*block4.*the teacher 3 .*layer3"):
        built("nst", "vgg8", "resnet8x4")


@pytest.mark.parametrize("name", ["ce_weight", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["nst"](**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, precision):
    assert_trains(data, "nst", precision, "nst")

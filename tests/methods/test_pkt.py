"""PKT against a loop, its invariances, and embeddings that are opposite or zero."""

import math

import pytest
import torch
from feature_fixtures import HALF, assert_float32_inside, assert_trains, ce_of, draw, terms_of_embeddings

from kdhelpers import METHODS
from kdhelpers.methods.pkt import neighbour_probabilities, pkt_loss


def naive_probabilities(rows):
    """Equation 5 with the cosine kernel, in Python floats."""
    lengths = [math.sqrt(sum(x * x for x in row)) + 1e-7 for row in rows]
    table = []
    for a, length_a in zip(rows, lengths, strict=True):
        kernel = []
        for b, length_b in zip(rows, lengths, strict=True):
            cosine = sum(x * y for x, y in zip(a, b, strict=True)) / length_a / length_b
            kernel.append((cosine + 1) / 2)
        table.append([value / sum(kernel) for value in kernel])
    return table


def naive(student, teacher):
    p_s, p_t = naive_probabilities(student.tolist()), naive_probabilities(teacher.tolist())
    total = 0.0
    for row_s, row_t in zip(p_s, p_t, strict=True):
        for s, t in zip(row_s, row_t, strict=True):
            total += t * math.log((t + 1e-7) / (s + 1e-7))
    return total / len(p_s) ** 2


def case():
    return draw(5, 3), draw(5, 4, seed=1)


def test_it_is_the_loop():
    assert pkt_loss(*case()).item() == pytest.approx(naive(*case()), rel=1e-10)


def test_it_is_the_divergence_of_the_rows_over_the_batch_size():
    student, teacher = (neighbour_probabilities(x) for x in case())
    torch.testing.assert_close(teacher.sum(1), torch.ones(5).double())
    divergence = (teacher * (teacher / student).log()).sum(1).mean()
    assert pkt_loss(*case()).item() == pytest.approx(divergence.item() / 5, rel=1e-4)  # the 1e-7 moves it by less


def test_three_points_by_hand():
    """One at a right angle to the first, one opposite: kernels 1, 1/2 and 0, so 2/3, 1/3 and 0."""
    rows = neighbour_probabilities(torch.tensor([[1.0, 0.0], [0.0, 5.0], [-2.0, 0.0]]).double())
    expected = torch.tensor([[2, 1, 0], [1, 2, 1], [0, 1, 2]]).double()
    torch.testing.assert_close(rows, expected / expected.sum(1, keepdim=True), rtol=0, atol=1e-6)


def test_a_turned_copy_of_other_lengths_has_no_loss():
    teacher = draw(6, 3)
    turn, _ = torch.linalg.qr(draw(3, 3, seed=2))
    lengths = torch.arange(1, 7).double()[:, None]
    student = (lengths * teacher @ turn).requires_grad_()
    loss = pkt_loss(student, teacher)
    loss.backward()
    assert abs(loss.item()) < 1e-9  # the 1e-7 in the norms is not the same share of all lengths
    assert student.grad.abs().max() < 1e-6


def test_gradcheck_in_float64():
    student, teacher = case()
    assert torch.autograd.gradcheck(lambda s: pkt_loss(s, teacher), student.requires_grad_())


def test_one_image_gives_zero_and_no_gradient():
    student = draw(1, 3).requires_grad_()
    loss = pkt_loss(student, draw(1, 4, seed=1))
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() < 1e-12


@pytest.mark.parametrize("zero", [1, 5])
def test_an_embedding_of_norm_zero_gets_no_gradient(zero):
    student, teacher = draw(5, 3, dtype=torch.float32), draw(5, 4, seed=1, dtype=torch.float32)
    student[:zero] = 0
    teacher[4] = 0
    probabilities = neighbour_probabilities(student)
    torch.testing.assert_close(probabilities[0], torch.full((5,), 0.2))  # cosine 0 with all
    student.requires_grad_()
    loss = pkt_loss(student, teacher)
    loss.backward()
    assert loss.isfinite()
    assert (student.grad[:zero] == 0).all()
    assert student.grad.abs().max() < 10


@pytest.mark.parametrize("width", [7, 512])
def test_opposite_embeddings_stay_finite_if_the_cosine_rounds_below_minus_one(width):
    one = draw(100, width, dtype=torch.float32)
    cosines = torch.stack([neighbour_probabilities(torch.stack([x, -x]))[0] for x in one])
    assert (cosines >= 0).all()
    for x in one[:20]:
        student = torch.stack([x, -3 * x]).requires_grad_()
        loss = pkt_loss(student, torch.stack([x, x]))
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_half_types_are_computed_in_float32(dtype, scale):
    assert_float32_inside(pkt_loss, dtype, scale)


def test_batches_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\), teacher_embedding \(5, 3\).*same images"):
        pkt_loss(torch.zeros(4, 3), torch.zeros(5, 3))


def test_terms_are_weighted():
    student, teacher = draw(4, 6), draw(4, 3, seed=1)
    terms = terms_of_embeddings(METHODS["pkt"](ce_weight=0.2, kd_weight=10.0), student, teacher)
    assert terms["ce"].item() == pytest.approx(0.2 * ce_of(student[:, :5]))
    assert terms["pkt"].item() == pytest.approx(10 * naive(student, teacher))


@pytest.mark.parametrize("name", ["ce_weight", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["pkt"](**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, precision):
    assert_trains(data, "pkt", precision, "pkt")

"""RKD against loops over pairs and triples, its invariances, and images that coincide."""

import math

import pytest
import torch
from feature_fixtures import HALF, assert_float32_inside, assert_trains, ce_of, draw, terms_of_embeddings

from kdhelpers import METHODS
from kdhelpers.methods.rkd import distances_and_angles, relation_differences, rkd_loss


def minus(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def huber(x):
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def naive_distances(rows):
    count = len(rows)
    lengths = [[math.dist(rows[i], rows[j]) for j in range(count)] for i in range(count)]
    mean = sum(map(sum, lengths)) / (count * (count - 1))
    return [length / mean for row in lengths for length in row]


def naive_angles(rows):
    angles = []
    for i in rows:
        for j in rows:
            for k in rows:
                a, b = minus(j, i), minus(k, i)
                lengths = math.sqrt(dot(a, a) * dot(b, b))
                angles.append(dot(a, b) / lengths if lengths else 0.0)
    return angles


def naive(student, teacher):
    """Both terms from the paper's definitions, in Python floats."""
    student, teacher = student.tolist(), teacher.tolist()
    for potential in (naive_distances, naive_angles):
        pairs = list(zip(potential(student), potential(teacher), strict=True))
        yield sum(huber(s - t) for s, t in pairs) / len(pairs)


def case(batch=5, scale=1.0):
    """Widths differ; one student's point is far out, so that a distance differs by more than 1."""
    student, teacher = scale * draw(batch, 3), draw(batch, 4, seed=1)
    student[0] *= 9
    return student, teacher


def test_both_terms_equal_the_definition():
    student, teacher = case()
    found = [term.item() for term in relation_differences(student, teacher)]
    assert found == pytest.approx(list(naive(student, teacher)), rel=1e-12)
    distances = zip(naive_distances(student.tolist()), naive_distances(teacher.tolist()), strict=True)
    assert max(abs(s - t) for s, t in distances) > 1  # both branches of the smooth L1 loss


def test_the_loss_is_their_weighted_sum_and_has_the_papers_weights():
    distance, angle = naive(*case())
    assert rkd_loss(*case(), 3.0, 0.5).item() == pytest.approx(3 * distance + angle / 2, rel=1e-12)
    assert rkd_loss(*case()).item() == pytest.approx(25 * distance + 50 * angle, rel=1e-12)


def test_a_moved_turned_and_stretched_copy_has_no_loss_and_no_gradient():
    teacher = draw(6, 3)
    turn, _ = torch.linalg.qr(draw(3, 3, seed=2))
    student = (7 * teacher @ turn + 100).requires_grad_()
    loss = rkd_loss(student, teacher)
    loss.backward()
    assert loss.item() < 1e-20
    assert student.grad.abs().max() < 1e-9


def test_three_points_by_hand():
    """A triangle with sides 3, 4, 5: distances over 4, cosines 0, 3/5, 4/5 at its corners, 1 with itself."""
    distances, angles = distances_and_angles(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]).double())
    expected = torch.tensor([[0, 3, 4], [3, 0, 5], [4, 5, 0]]).double() / 4
    torch.testing.assert_close(distances, expected, rtol=0, atol=1e-12)
    corner = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 1]]).double()  # of the right angle; with itself it has none
    torch.testing.assert_close(angles[0], corner)
    assert angles[1, 0, 2].item() == pytest.approx(3 / 5)
    assert angles[2, 0, 1].item() == pytest.approx(4 / 5)


def test_gradcheck_in_float64():
    student, teacher = case()
    assert torch.autograd.gradcheck(lambda s: rkd_loss(s, teacher), student.requires_grad_())


def test_one_image_gives_zero_and_no_gradient():
    student = draw(1, 3).requires_grad_()
    loss = rkd_loss(student, draw(1, 4, seed=1))
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() == 0


@pytest.mark.parametrize("same", [2, 5])
def test_images_that_coincide_have_no_direction_and_a_finite_gradient(same):
    student, teacher = draw(5, 3, dtype=torch.float32), draw(5, 4, seed=1, dtype=torch.float32)
    student[:same] = student[0]
    _, angles = distances_and_angles(student)
    assert (angles[0, 1] == 0).all()  # from image 0 to its copy, with every other
    student.requires_grad_()
    loss = rkd_loss(student, teacher)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.abs().max() < 1e3
    if same == 5:
        assert student.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_half_types_are_computed_in_float32(dtype, scale):
    """A squared distance of 1e4 is more than float16 holds, one of 1e-3 less than it resolves."""
    assert_float32_inside(rkd_loss, dtype, scale)


def test_batches_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\), teacher_embedding \(5, 3\).*same images"):
        rkd_loss(torch.zeros(4, 3), torch.zeros(5, 3))


def test_terms_are_weighted():
    student, teacher = draw(4, 6), draw(4, 3, seed=1)
    method = METHODS["rkd"](distance_weight=3.0, angle_weight=0.5, ce_weight=0.2, kd_weight=10.0)
    terms = terms_of_embeddings(method, student, teacher)
    distance, angle = naive(student, teacher)
    assert terms["ce"].item() == pytest.approx(0.2 * ce_of(student[:, :5]))
    assert terms["distance"].item() == pytest.approx(30 * distance)
    assert terms["angle"].item() == pytest.approx(5 * angle)


@pytest.mark.parametrize("name", ["distance_weight", "angle_weight", "ce_weight", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["rkd"](**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, precision):
    assert_trains(data, "rkd", precision, "distance", "angle")

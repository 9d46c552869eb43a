import pytest
import torch
import torch.nn.functional as F
from logit_cases import at_a_gap, case, hard_cases, softmax, terms_of, train

from kdhelpers.methods import METHODS, Context, dist_loss
from kdhelpers.methods.dist import correlation, relations
from kdhelpers.models import Outputs


def pearson(u, v):
    """The paper's equation 5 in Python floats, with the code's 1e-8."""
    mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
    covariance = sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True))
    norms = sum((a - mean_u) ** 2 for a in u) ** 0.5 * sum((b - mean_v) ** 2 for b in v) ** 0.5
    return covariance / (norms + 1e-8)


def naive(student, teacher, temperature):
    p_s, p_t = ([softmax(row, temperature) for row in z.tolist()] for z in (student, teacher))
    rows = [pearson(u, v) for u, v in zip(p_s, p_t, strict=True)]
    columns = [pearson(u, v) for u, v in zip(zip(*p_s, strict=True), zip(*p_t, strict=True), strict=True)]
    return 1 - sum(rows) / len(rows), 1 - sum(columns) / len(columns)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_both_parts_equal_the_definition(temperature):
    student, teacher, _ = case()
    inter, intra = relations(student, teacher, temperature)
    assert (inter.item(), intra.item()) == pytest.approx(naive(student, teacher, temperature), rel=1e-10)


def test_the_loss_is_their_weighted_sum_times_the_squared_temperature():
    student, teacher, _ = case()
    inter, intra = naive(student, teacher, 3.0)
    assert dist_loss(student, teacher, 0.5, 7.0, 3.0).item() == pytest.approx(9 * (0.5 * inter + 7 * intra), rel=1e-10)
    assert dist_loss(student, teacher).item() == pytest.approx(sum(naive(student, teacher, 1.0)), rel=1e-10)


def test_logits_equal_up_to_a_constant_per_image_have_no_loss_and_hardly_a_gradient():
    student, _, _ = case()
    student.requires_grad_()
    loss = dist_loss(student, student.detach() + torch.arange(6.0)[:, None], 2.0, 2.0, 4.0)
    assert loss.item() == pytest.approx(0, abs=1e-4)  # the 1e-8 leaves a little
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-4


def test_correlation_ignores_scale_and_offset_and_turns_with_the_sign():
    values = case()[0]
    ones = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(correlation(3 * values + 5, values, 1), ones, rtol=0, atol=1e-8)
    torch.testing.assert_close(correlation(-values, values, 1), -ones, rtol=0, atol=1e-8)


def test_images_whose_sureness_is_exchanged_differ_within_the_classes_alone():
    """softmax(a onehot) is the one-hot row, scaled and moved: inter is 0, though the images of a class differ."""
    ones = torch.eye(3, dtype=torch.float64)
    inter, intra = relations(torch.cat([2 * ones, 4 * ones]), torch.cat([4 * ones, 2 * ones]))
    assert inter < 1e-6
    assert intra > 1e-3


def test_a_single_image_has_its_row_alone_and_the_whole_gamma():
    student, teacher, _ = case(batch=1)
    student.requires_grad_()
    inter = naive(student, teacher, 2.0)[0]
    loss = dist_loss(student, teacher, 3.0, 5.0, 2.0)
    assert loss.item() == pytest.approx(4 * (3 * inter + 5), rel=1e-9)
    expected = torch.autograd.grad(dist_loss(student, teacher, 3.0, 0.0, 2.0), student)[0]
    assert torch.equal(torch.autograd.grad(loss, student)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("classes", [3, 5, 100])
def test_a_student_of_equal_logits_is_unrelated_and_gets_no_gradient(dtype, classes):
    """Its mean is rounded: centred values of 1e-9, not 0, would be divided by 1e-8."""
    _, teacher, _ = case(classes=classes, dtype=dtype)
    student = torch.full((6, classes), 3.0, dtype=dtype, requires_grad=True)
    loss = dist_loss(student, teacher, 2.0, 2.0, 4.0)
    assert loss.item() == pytest.approx(64)
    assert not torch.autograd.grad(loss, student)[0].any()


def test_gradcheck_in_float64():
    student, teacher, _ = case()
    assert torch.autograd.gradcheck(lambda s: dist_loss(s, teacher, 2.0, 3.0, 4.0), student.requires_grad_())


@hard_cases
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gaps_stay_finite_and_right(dtype, gap, temperature):
    values = at_a_gap(lambda s, t, _: dist_loss(s, t, 2.0, 2.0, temperature), dtype, gap)
    assert min(values) > temperature**2


def test_one_class_and_shapes_that_differ_are_refused_before_training():
    with pytest.raises(ValueError, match=r"student_logits \(3, 1\): .* C >= 2"):
        dist_loss(torch.zeros(3, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"\(4, 10\).*\(4, 100\)"):
        dist_loss(torch.zeros(4, 10), torch.zeros(4, 100))
    one = Outputs(torch.zeros(2, 1), None, {})
    with pytest.raises(ValueError, match="C >= 2"):
        METHODS["dist"]().build(Context(one, one, None, None, 1))


def test_terms_are_weighted():
    student, teacher, labels = case(dtype=torch.float32)
    inter, intra = naive(student, teacher, 3.0)
    terms = terms_of(METHODS["dist"](beta=0.5, gamma=7.0, temperature=3.0, ce_weight=0.3))
    assert terms["ce"].item() == pytest.approx(0.3 * F.cross_entropy(student, labels).item(), rel=1e-5)
    assert terms["inter"].item() == pytest.approx(9 * 0.5 * inter, rel=1e-4)
    assert terms["intra"].item() == pytest.approx(9 * 7 * intra, rel=1e-4)


@pytest.mark.parametrize("name", ["beta", "gamma", "temperature", "ce_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["dist"](**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, precision):
    first, second = train("dist", data, precision)
    assert second["inter"] + second["intra"] < first["inter"] + first["intra"]

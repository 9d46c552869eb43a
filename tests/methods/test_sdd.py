import math

import pytest
import torch
from map_cases import Case, digits_run, stored_teacher
from torch import nn
from torch.nn.functional import cross_entropy
from training_fixtures import train_one_epoch, training_of

from kdhelpers import build_model, fit
from kdhelpers.methods import dkd_loss, kd_loss
from kdhelpers.methods.sdd import ScaleDecoupledKD, cell_logits, sdd_dkd_loss, sdd_kd_loss, verdicts
from kdhelpers.training.teacher import Teacher


def softmax(logits, temperature):
    exponentials = [math.exp(z / temperature) for z in logits]
    return [e / sum(exponentials) for e in exponentials]


def naive_kd(student, teacher, label, temperature):
    pairs = zip(softmax(student, temperature), softmax(teacher, temperature), strict=True)
    return temperature**2 * sum(p_t * math.log(p_t / p_s) for p_s, p_t in pairs)


def naive_dkd(student, teacher, label, temperature, alpha=1.0, beta=8.0):
    p_s, p_t = softmax(student, temperature), softmax(teacher, temperature)
    y, rest = label, [c for c in range(len(student)) if c != label]
    target = p_t[y] * math.log(p_t[y] / p_s[y]) + (1 - p_t[y]) * math.log((1 - p_t[y]) / (1 - p_s[y]))
    others = sum(p_t[c] / (1 - p_t[y]) * math.log(p_t[c] / (1 - p_t[y]) / (p_s[c] / (1 - p_s[y]))) for c in rest)
    return temperature**2 * (alpha * target + beta * others)


def naive(base, student, teacher, labels, temperature, weight, **options):
    """The mean over images and cells; a cell counts `weight` times if its verdict is not the global cell's."""
    total, count = 0.0, 0
    for z_s, z_t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        right = [cell.index(max(cell)) == y for cell in z_t]
        for s, t, verdict in zip(z_s, z_t, right, strict=True):
            total += (1.0 if verdict == right[0] else weight) * base(s, t, y, temperature, **options)
            count += 1
    return total / count


def case(batch=6, cells=5, classes=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, batch, cells, classes, generator=generator, dtype=dtype).mul(3).unbind()
    return student, teacher, torch.arange(batch) % classes


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weight", [1.0, 2.0, 5.0])
def test_both_losses_equal_the_definition(temperature, weight):
    student, teacher, labels = case()
    right = verdicts(teacher, labels)
    assert set((right != right[:, :1]).flatten().tolist()) == {True, False}, "the case has both kinds of cells"
    expected = naive(naive_kd, student, teacher, labels, temperature, weight)
    assert sdd_kd_loss(student, teacher, labels, temperature, weight).item() == pytest.approx(expected, rel=1e-9)
    expected = naive(naive_dkd, student, teacher, labels, temperature, weight, alpha=0.5, beta=3.0)
    got = sdd_dkd_loss(student, teacher, labels, 0.5, 3.0, temperature, weight)
    assert got.item() == pytest.approx(expected, rel=1e-9)


def test_the_defaults_are_the_published_ones():
    student, teacher, labels = case()
    assert torch.equal(sdd_kd_loss(student, teacher, labels), sdd_kd_loss(student, teacher, labels, 4.0, 2.0))
    default = sdd_dkd_loss(student, teacher, labels)
    assert torch.equal(default, sdd_dkd_loss(student, teacher, labels, 1.0, 8.0, 4.0, 2.0))


def test_one_cell_gives_the_base_loss():
    student, teacher, labels = case(cells=1)
    flat = student[:, 0], teacher[:, 0]
    torch.testing.assert_close(sdd_kd_loss(student, teacher, labels), kd_loss(*flat))
    torch.testing.assert_close(sdd_dkd_loss(student, teacher, labels), dkd_loss(*flat, labels))


def test_equal_cells_give_the_base_loss_too():
    student, teacher, labels = case(cells=1)
    repeated = student.expand(-1, 5, -1), teacher.expand(-1, 5, -1)
    torch.testing.assert_close(sdd_kd_loss(*repeated, labels), kd_loss(student[:, 0], teacher[:, 0]))


def test_a_cell_counts_twice_only_if_its_verdict_is_not_the_global_one():
    """Teacher: globally right; cell 1 right with another second class, cell 2 wrong. The student is off by the same."""
    teacher = torch.tensor([[[3.0, 0, 0], [3.0, 1, 0], [0.0, 3, 0]]])
    student = teacher.clone()
    for cell, factor in ((0, 1), (1, 1), (2, 2)):
        one = student.clone()
        one[0, cell, 2] += 1
        alone = kd_loss(one[0, cell : cell + 1], teacher[0, cell : cell + 1])
        torch.testing.assert_close(sdd_kd_loss(one, teacher, torch.tensor([0])), factor * alone / 3)
        # of another label all three cells are wrong alike: each counts once
        torch.testing.assert_close(sdd_kd_loss(one, teacher, torch.tensor([2])), alone / 3)


@pytest.mark.parametrize("loss", [sdd_kd_loss, sdd_dkd_loss])
def test_equal_networks_have_no_loss_and_no_gradient(loss):
    student, _, labels = case()
    student.requires_grad_()
    value = loss(student, student.detach() + 7, labels)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(value, student)[0].abs().max() < 1e-12


@pytest.mark.parametrize("loss", [sdd_kd_loss, sdd_dkd_loss])
def test_gradcheck_in_float64(loss):
    student, teacher, labels = case()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, labels), student.requires_grad_())


@pytest.mark.parametrize("loss", [sdd_kd_loss, sdd_dkd_loss])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gaps_of_ten_thousand_stay_finite_and_right(loss, dtype):
    student = torch.tensor([[[1e4, 0.0, -1e4], [2.0, 1.0, 0.0]]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[[-1e4, 0.0, 1e4], [1.0, 2.0, 0.0]]], dtype=dtype)
    labels = torch.tensor([1])
    value = loss(student, teacher, labels)
    value.backward()
    exact = loss(student.detach().double(), teacher.double(), labels)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-4)
    assert student.grad.isfinite().all()
    assert student.grad[0].abs().amax(1).min() > 0.01


def test_one_class_is_0_for_kd_and_refused_for_dkd():
    cells, labels = torch.zeros(3, 5, 1), torch.zeros(3, dtype=torch.long)
    assert sdd_kd_loss(cells, cells + 1, labels).item() == 0
    with pytest.raises(ValueError, match="C >= 2"):
        sdd_dkd_loss(cells, cells, labels)


@pytest.mark.parametrize("loss", [sdd_kd_loss, sdd_dkd_loss])
def test_other_cells_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(3, 5, 4\), teacher_cells \(3, 21, 4\).*same scales"):
        loss(torch.zeros(3, 5, 4), torch.zeros(3, 21, 4), torch.zeros(3, dtype=torch.long))


def test_cells_equal_the_definition_row_by_row():
    classifier, feature_map = nn.Linear(3, 4), torch.randn(2, 3, 8, 8)
    cells = cell_logits(feature_map, classifier, (1, 2, 4))
    assert cells.shape == (2, 1 + 4 + 16, 4)
    place = 0
    for scale in (1, 2, 4):
        step = 8 // scale
        for i in range(scale):
            for j in range(scale):
                part = feature_map[:, :, i * step : (i + 1) * step, j * step : (j + 1) * step]
                torch.testing.assert_close(cells[:, place], classifier(part.mean((2, 3))))
                place += 1


def test_the_global_cell_has_the_networks_own_logits():
    classifier, feature_map = nn.Linear(3, 4), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(cell_logits(feature_map, classifier)[:, 0], classifier(feature_map.mean((2, 3))))


def test_a_map_of_two_pixels_is_repeated_to_four():
    classifier, feature_map = nn.Linear(3, 4), torch.randn(2, 3, 2, 2)
    cells = cell_logits(feature_map, classifier, (1, 2, 4))
    pixels = classifier(feature_map.permute(0, 2, 3, 1))  # [2, 2, 2, 4]
    torch.testing.assert_close(cells[:, 1:5], pixels.flatten(1, 2))
    torch.testing.assert_close(cells[:, 5:7], pixels[:, 0, :1].expand(2, 2, 4))


def test_a_map_of_an_odd_size_passes_the_4x4_grid_first():
    classifier, feature_map = nn.Linear(3, 4), torch.randn(2, 3, 7, 7)
    grid = nn.AdaptiveAvgPool2d(4)(feature_map)
    torch.testing.assert_close(cell_logits(feature_map, classifier), cell_logits(grid, classifier))


@pytest.mark.parametrize("scales", [(), (3,), (1, 8)])
def test_unknown_scales_are_refused(scales):
    with pytest.raises(ValueError, match="scales = .*some of 1, 2, 4"):
        cell_logits(torch.zeros(2, 3, 4, 4), nn.Linear(3, 4), scales)


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_terms_are_weighted_and_rise_with_the_warm_up(base):
    shape = {"alpha": 0.5, "beta": 3.0} if base == "dkd" else {}
    settings = {"base": base, "scales": (1, 2, 4), "temperature": 2.0, "complementary_weight": 3.0, "warmup_epochs": 4}
    case = Case("sdd", ce_weight=0.5, kd_weight=3.0, **settings, **shape)
    outputs = case.student_out, case.teacher_out
    cells = [cell_logits(o.final_map, c, (1, 2, 4)) for o, c in zip(outputs, case.classifiers, strict=True)]
    expected = naive(naive_dkd if shape else naive_kd, *cells, case.batch.labels, 2.0, 3.0, **shape)
    for epoch, warm in ((1, 0.25), (4, 1.0), (5, 1.0)):
        terms = case.terms(epoch)
        assert set(terms) == {"ce", "sdd"}
        assert terms["ce"].item() == pytest.approx(0.5 * cross_entropy(outputs[0].logits, case.batch.labels).item())
        assert terms["sdd"].item() == pytest.approx(warm * 3.0 * expected, rel=1e-4)


def test_without_warm_up_the_first_epoch_has_the_whole_weight():
    case = Case("sdd")
    assert torch.equal(case.terms(1)["sdd"], case.terms(20)["sdd"])


def test_the_global_cell_of_each_network_has_its_own_logits():
    case = Case("sdd", "mobilenetv2", "wrn_16_2")
    for outputs, classifier in zip((case.student_out, case.teacher_out), case.classifiers, strict=True):
        torch.testing.assert_close(cell_logits(outputs.final_map, classifier)[:, 0], outputs.logits)


def test_the_student_is_trained_and_the_teacher_is_not():
    case = Case("sdd", ce_weight=0.0)
    assert case.trained()[0] == {name for name, _ in case.network.named_parameters()}
    assert case.teacher.classifier.weight.grad is None
    assert not list(case.method.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (2, 1)}, r"scales = \[2, 1\]: must begin with 1"),
        ({"scales": (1, 3)}, r"scales = \[1, 3\]: must be some of 1, 2, 4"),
        ({"alpha": 2.0}, "alpha = 2.0: belongs to base dkd"),
        ({"beta": 2.0}, "beta = 2.0: belongs to base dkd"),
        ({"temperature": -1}, "temperature = -1"),
        ({"kd_weight": -1}, "kd_weight = -1"),
        ({"complementary_weight": -1}, "complementary_weight = -1"),
    ],
)
def test_wrong_hyperparameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ScaleDecoupledKD(**options)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_trains_in_each_precision(root, data, precision):
    stored_teacher(data)
    first, second = fit(digits_run("sdd", precision), data).history
    assert second["sdd"] < first["sdd"]
    assert second["ce"] < first["ce"]


def test_a_step_in_fp16_is_finite(root, data):
    training = training_of(digits_run("sdd", "fp16"), data, Teacher(build_model("resnet8", 10)))
    train_one_epoch(training)
    assert math.isfinite(training.history[0]["sdd"])

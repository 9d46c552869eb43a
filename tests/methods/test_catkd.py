import math

import pytest
import torch
from map_cases import Case, digits_run, stored_teacher
from torch import nn
from torch.nn.functional import cross_entropy
from training_fixtures import train_one_epoch, training_of

from kdhelpers import build_model, fit
from kdhelpers.methods.catkd import ClassAttentionTransfer, cat_loss, class_activation_maps
from kdhelpers.training.teacher import Teacher


def naive_bins(channel, size):
    """A channel of nested lists averaged over size x size bins, by the rule of adaptive pooling."""
    side = len(channel)
    edges = [(i * side // size, -(-(i + 1) * side // size)) for i in range(size)]
    return [
        sum(channel[i][j] for i in range(top, bottom) for j in range(left, right)) / ((bottom - top) * (right - left))
        for top, bottom in edges
        for left, right in edges
    ]


def naive(student, teacher, resolution, normalize):
    """The definition in Python floats, channel by channel."""
    total, count = 0.0, 0
    for s, t in zip(student.flatten(0, 1).tolist(), teacher.flatten(0, 1).tolist(), strict=True):
        rows = [naive_bins(s, resolution), naive_bins(t, resolution)]
        if normalize:
            rows = [[value / math.sqrt(sum(v**2 for v in row)) for value in row] for row in rows]
        total += sum((a - b) ** 2 for a, b in zip(*rows, strict=True))
        count += resolution**2
    return total / count


def case(student=4, teacher=4, batch=3, classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    sides = (student, student), (teacher, teacher)
    return [torch.randn(batch, classes, *side, generator=generator, dtype=dtype).mul(3) for side in sides]


def test_maps_equal_the_definition():
    feature_map, weight = torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    cams = class_activation_maps(feature_map, weight)
    for b in range(2):
        for c in range(4):
            for i in range(2):
                for j in range(2):
                    expected = sum(weight[c, k].item() * feature_map[b, k, i, j].item() for k in range(3))
                    assert cams[b, c, i, j].item() == pytest.approx(expected, rel=1e-12)


def test_the_mean_of_a_map_is_the_logit_without_the_bias():
    classifier, feature_map = nn.Linear(6, 4), torch.randn(3, 6, 5, 5)
    logits = classifier(feature_map.mean((2, 3))) - classifier.bias
    torch.testing.assert_close(class_activation_maps(feature_map, classifier.weight).mean((2, 3)), logits)


def test_pooling_commutes_with_the_classifier():
    feature_map, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3)
    pool = nn.AdaptiveAvgPool2d(2)
    after = pool(class_activation_maps(feature_map, weight))
    torch.testing.assert_close(class_activation_maps(pool(feature_map), weight), after)


def test_a_map_of_another_width_than_the_classifiers_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\), weight \(4, 5\)"):
        class_activation_maps(torch.zeros(2, 3, 8, 8), torch.zeros(4, 5))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("student", "teacher", "resolution"), [(4, 4, 2), (8, 4, 2), (4, 8, 4), (2, 4, 4), (5, 7, 3)])
def test_equals_the_definition(student, teacher, resolution, normalize):
    maps = case(student, teacher)
    assert cat_loss(*maps, resolution, normalize).item() == pytest.approx(naive(*maps, resolution, normalize), rel=1e-9)


def test_the_defaults_are_the_papers():
    maps = case()
    assert cat_loss(*maps).item() == pytest.approx(naive(*maps, 2, True), rel=1e-9)


def test_normalised_maps_ignore_the_size_of_each_class():
    student, teacher = case()
    scales = torch.rand(3, 5, 1, 1, dtype=torch.float64) + 0.1
    assert cat_loss(student * scales, student).item() == pytest.approx(0, abs=1e-20)
    assert cat_loss(student, student * 2, normalize=False).item() > 0.1
    assert cat_loss(-student, student).item() == pytest.approx(4 / 4)  # opposite unit vectors: ||2 u||^2 over r^2


def test_equal_maps_have_no_loss_and_no_gradient():
    student, _ = case()
    student.requires_grad_()
    loss = cat_loss(student, student.detach().clone())
    assert loss.item() == pytest.approx(0, abs=1e-20)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-12


@pytest.mark.parametrize("normalize", [True, False])
def test_gradcheck_in_float64(normalize):
    student, teacher = case()
    assert torch.autograd.gradcheck(lambda s: cat_loss(s, teacher, 2, normalize), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_class_without_evidence_gets_no_gradient_and_the_others_do(dtype):
    """One image, two classes; the student's first map is 0, and 300^2 is more than float16 holds."""
    student = torch.zeros(1, 2, 4, 4, dtype=dtype)
    student[0, 1, :, :2] = 300.0
    student.requires_grad_()
    teacher = torch.full((1, 2, 4, 4), 300.0, dtype=dtype)
    loss = cat_loss(student, teacher)
    loss.backward()
    # units: 0 against (1/2, 1/2, 1/2, 1/2): 1; (1, 0, 1, 0) / sqrt 2 against it: 2 - sqrt 2
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((1 + 2 - math.sqrt(2)) / 8, rel=1e-3)
    assert student.grad.isfinite().all()
    assert not student.grad[0, 0].any()
    assert student.grad[0, 1].any()


def test_one_class_is_defined():
    student, teacher = case(classes=1)
    assert cat_loss(student, teacher).item() == pytest.approx(naive(student, teacher, 2, True), rel=1e-9)


@pytest.mark.parametrize("shape", [(3, 4, 4, 4), (2, 5, 4, 4)])
def test_other_numbers_of_images_or_classes_are_refused(shape):
    with pytest.raises(ValueError, match=r"student_cams \(3, 5, 4, 4\).*same classes"):
        cat_loss(torch.zeros(3, 5, 4, 4), torch.zeros(shape))


@pytest.mark.parametrize("normalize", [True, False])
def test_terms_are_weighted(normalize):
    case = Case("catkd", ce_weight=0.5, kd_weight=3.0, resolution=4, normalize=normalize)
    outputs = case.student_out, case.teacher_out
    cams = [
        torch.einsum("bkhw,ck->bchw", output.final_map, classifier.weight.detach())
        for output, classifier in zip(outputs, case.classifiers, strict=True)
    ]
    terms = case.terms()
    assert set(terms) == {"ce", "cat"}
    assert terms["ce"].item() == pytest.approx(0.5 * cross_entropy(outputs[0].logits, case.batch.labels).item())
    assert terms["cat"].item() == pytest.approx(3.0 * naive(*cams, 4, normalize), rel=1e-4)


@pytest.mark.parametrize(("student", "teacher"), [("mobilenetv2", "vgg13"), ("shufflenetv2", "wrn_16_2")])
def test_networks_of_different_families_are_compared(student, teacher):
    assert Case("catkd", student, teacher, normalize=True, resolution=4).terms()["cat"].item() > 0


def test_the_students_classifier_is_trained_by_both_terms_and_the_teachers_is_not():
    case = Case("catkd")
    case.terms()["cat"].backward()
    assert case.network.fc.weight.grad.abs().max() > 0
    assert case.network.fc.bias.grad is None
    assert case.teacher.classifier.weight.grad is None
    assert not list(case.method.parameters())
    assert case.trained()[0] == {name for name, _ in case.network.named_parameters()}


@pytest.mark.parametrize("name", ["ce_weight", "kd_weight", "resolution"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        ClassAttentionTransfer(**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_trains_in_each_precision(root, data, precision):
    stored_teacher(data)
    first, second = fit(digits_run("catkd", precision), data).history
    assert second["cat"] < first["cat"]
    assert second["ce"] < first["ce"]


def test_a_step_in_fp16_is_finite(root, data):
    training = training_of(digits_run("catkd", "fp16"), data, Teacher(build_model("resnet8", 10)))
    train_one_epoch(training)
    assert math.isfinite(training.history[0]["cat"])

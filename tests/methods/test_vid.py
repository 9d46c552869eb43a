"""VID against a loop, its best variance, its regressor, and what is trained with the student."""

import math

import pytest
import torch
from feature_fixtures import HALF, OneView, ask, assert_trains, built, ce_of, draw
from training_fixtures import QUICK, train_one_epoch, training_of

from kdhelpers import METHODS, Run, build_model
from kdhelpers.methods.vid import build_predictor, vid_loss
from kdhelpers.models import Outputs
from kdhelpers.training.teacher import Teacher


def naive(predicted, teacher, log_scale):
    """The negative log-likelihood without its constant, in Python floats: mean over all elements."""
    total = count = 0
    for means, targets in zip(predicted.flatten(2).tolist(), teacher.flatten(2).tolist(), strict=True):
        for channel, scale in enumerate(log_scale.tolist()):
            v = math.log(1 + math.exp(scale)) + 1e-5
            for mu, t in zip(means[channel], targets[channel], strict=True):
                total, count = total + ((t - mu) ** 2 / v + math.log(v)) / 2, count + 1
    return total / count


def case():
    return draw(3, 4, 2, 5), draw(3, 4, 2, 5, seed=1), draw(4, seed=2)


def test_it_is_the_loop():
    assert vid_loss(*case()).item() == pytest.approx(naive(*case()), rel=1e-12)


def test_it_is_the_normal_distributions_negative_log_likelihood():
    predicted, teacher, log_scale = case()
    variance = (torch.nn.functional.softplus(log_scale) + 1e-5)[:, None, None].expand_as(teacher)
    full = -torch.distributions.Normal(predicted, variance.sqrt()).log_prob(teacher).mean()
    assert vid_loss(*case()).item() == pytest.approx(full.item() - math.log(2 * math.pi) / 2)


def test_the_best_variance_is_the_mean_squared_error_of_the_channel():
    predicted, teacher, _ = case()
    errors = (predicted - teacher).square().mean((0, 2, 3))
    log_scale = torch.log(torch.expm1(errors - 1e-5)).requires_grad_()
    (slope,) = torch.autograd.grad(vid_loss(predicted, teacher, log_scale), log_scale)
    assert slope.abs().max() < 1e-12


def test_gradcheck_in_float64():
    predicted, teacher, log_scale = case()
    inputs = predicted.requires_grad_(), log_scale.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, scale: vid_loss(p, teacher, scale), inputs)


@pytest.mark.parametrize("scale", [-1e4, -50.0, 50.0, 1e4])
def test_extreme_variances_stay_finite(scale):
    """softplus(-1e4) is 0: the variance is its least, 1e-5. One image of one pixel."""
    predicted, teacher = torch.zeros(1, 2, 1, 1, requires_grad=True), torch.full((1, 2, 1, 1), 30.0)
    log_scale = torch.full((2,), scale, requires_grad=True)
    loss = vid_loss(predicted, teacher, log_scale)
    loss.backward()
    variance = max(scale, 0) + 1e-5
    assert loss.item() == pytest.approx((900 / variance + math.log(variance)) / 2, rel=1e-5)
    assert predicted.grad.isfinite().all()
    assert log_scale.grad.isfinite().all()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_half_types_are_computed_in_float32(dtype, scale):
    predicted, teacher, log_scale = (x.to(dtype) for x in case())
    predicted, teacher = scale * predicted, scale * teacher
    exact = vid_loss(predicted.double(), teacher.double(), log_scale.double()).item()
    predicted.requires_grad_()
    loss = vid_loss(predicted, teacher, log_scale)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-4)
    if scale < 1e4 or dtype == torch.bfloat16:  # 1e4 over a variance of 1e-2 is more than float16 holds
        assert predicted.grad.isfinite().all()


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\), teacher_map \(2, 8, 4, 4\).*regressor"):
        vid_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 8, 4, 4), torch.zeros(8))
    with pytest.raises(ValueError, match=r"log_scale \(1,\)"):
        vid_loss(torch.zeros(2, 8, 4, 4), torch.zeros(2, 8, 4, 4), torch.zeros(1))


def test_the_regressor_is_three_convolutions_without_bias_and_ends_without_relu():
    predictor = build_predictor(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 8, 8))
    assert [parameter.shape for parameter in predictor.parameters()] == [(5, 3, 1, 1), (5, 5, 1, 1), (5, 5, 1, 1)]
    assert (predictor(torch.randn(2, 3, 4, 4)) < 0).any()


def test_the_first_variance_is_five():
    for log_scale in built("vid").log_scales:
        variance = torch.nn.functional.softplus(log_scale.double()) + 1e-5
        torch.testing.assert_close(variance, torch.full_like(variance, 5.0), rtol=1e-6, atol=0)


def test_the_published_pair_has_258k_parameters():
    sizes = [parameter.numel() for parameter in built("vid", "resnet8x4", "resnet32x4").parameters()]
    assert sum(sizes) == 258_496


def test_all_maps_but_the_first_are_predicted_and_terms_are_weighted():
    method = built("vid", ce_weight=0.2, kd_weight=10.0)
    terms, student, teacher = ask(method)
    expected = 0
    for i in range(3):
        predicted = method.predictors[i](student.feature_maps[f"layer{i + 1}"])
        expected += naive(predicted, teacher.feature_maps[f"layer{i + 1}"], method.log_scales[i])
    assert terms["ce"].item() == pytest.approx(0.2 * ce_of(student.logits))
    assert terms["vid"].item() == pytest.approx(10 * expected, rel=1e-4)


def test_a_larger_map_of_the_student_is_pooled_before_the_regressor():
    method = built("vid", ce_weight=0.0)
    _, student, teacher = ask(method)
    doubled = {name: x.repeat_interleave(2, 2).repeat_interleave(2, 3) for name, x in student.feature_maps.items()}
    outputs = [Outputs(student.logits, None, maps) for maps in (student.feature_maps, doubled)]
    same, larger = (method(lambda view, one=one: one, lambda view: teacher, OneView(None), 1) for one in outputs)
    torch.testing.assert_close(same["vid"], larger["vid"])


def test_networks_with_other_numbers_of_maps_are_refused():
    with pytest.raises(ValueError, match="feature_maps: the student has 4 .*block4.*the teacher 3 .*layer3"):
        built("vid", "vgg8", "resnet8x4")


@pytest.mark.parametrize("name", ["ce_weight", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        METHODS["vid"](**{name: -1})


def test_regressors_and_variances_are_trained(root, data):
    run = Run(**QUICK, method="vid", teacher="resnet8")
    training = training_of(run, data, Teacher(build_model("resnet8", 10)))
    before = {name: value.clone() for name, value in training.method.named_parameters()}
    train_one_epoch(training)
    assert len(before) == 12
    for name, value in training.method.named_parameters():
        assert not torch.equal(before[name], value), name


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_trains(root, data, precision):
    assert_trains(data, "vid", precision, "vid")

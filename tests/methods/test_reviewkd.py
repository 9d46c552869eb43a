import math

import pytest
import torch
from map_cases import Case, digits_run, stored_teacher
from torch.nn.functional import cross_entropy
from training_fixtures import Recorder, same, train_one_epoch, training_of, weights

from kdhelpers import artifacts, build_model, fit
from kdhelpers.methods.reviewkd import AttentionFusion, KnowledgeReview, hcl_loss
from kdhelpers.training.teacher import Teacher


def naive_pool(channel, side):
    """A channel of nested lists, averaged over side x side bins; the height and width are multiples of `side`."""
    step = len(channel) // side
    return [
        [
            sum(channel[i * step + a][j * step + b] for a in range(step) for b in range(step)) / step**2
            for j in range(side)
        ]
        for i in range(side)
    ]


def naive_mse(first, second):
    pairs = [(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)]
    return sum((a - b) ** 2 for a, b in pairs) / len(pairs)


def naive(student_maps, teacher_maps):
    """HCL in Python floats: the mean over images and channels of the squared difference, at each scale."""
    total = 0.0
    for student, teacher in zip(student_maps, teacher_maps, strict=True):
        channels = list(zip(student.flatten(0, 1).tolist(), teacher.flatten(0, 1).tolist(), strict=True))
        sides = [side for side in (4, 2, 1) if side < student.shape[2]]
        value = sum(naive_mse(s, t) for s, t in channels) / len(channels)
        for n, side in enumerate(sides, start=1):
            pooled = sum(naive_mse(naive_pool(s, side), naive_pool(t, side)) for s, t in channels) / len(channels)
            value += pooled / 2**n
        total += value / (1 + sum(1 / 2**n for n in range(1, len(sides) + 1)))
    return total


def levels(*sides, dtype=torch.float64, batch=2):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, batch, 3, side, side, generator=generator, dtype=dtype) for side in sides]
    return [pair[0] for pair in maps], [pair[1] for pair in maps]


@pytest.mark.parametrize("sides", [(1,), (2,), (4,), (8,), (8, 4, 2, 1), (16, 8)])
def test_equals_the_definition(sides):
    student, teacher = levels(*sides)
    assert hcl_loss(student, teacher).item() == pytest.approx(naive(student, teacher), rel=1e-12)


def test_equal_maps_have_no_loss_and_no_gradient():
    student, _ = levels(8, 1)
    student[0].requires_grad_()
    loss = hcl_loss(student, [each.detach().clone() for each in student])
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, student[0])[0].any()


def test_a_constant_difference_counts_once_at_any_size():
    """The weights of the scales sum to 1: a level that is off by 3 everywhere gives 9."""
    student, _ = levels(8, 4, 1)
    assert hcl_loss(student, [each + 3 for each in student]).item() == pytest.approx(3 * 9)


def test_a_difference_without_a_mean_is_seen_at_the_finest_scale_alone():
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    maps = checks.expand(2, 3, 8, 8)
    assert hcl_loss([maps], [torch.zeros(2, 3, 8, 8)]).item() == pytest.approx(1 / (1 + 0.5 + 0.25 + 0.125))


def test_gradcheck_in_float64():
    student, teacher = levels(8, 2)
    assert torch.autograd.gradcheck(lambda s: hcl_loss([s, student[1]], teacher), student[0].requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_values_of_one_image_stay_finite_and_right(dtype):
    """600^2 is more than float16 holds."""
    student = torch.full((1, 1, 4, 4), 300.0, dtype=dtype, requires_grad=True)
    loss = hcl_loss([student], [torch.full((1, 1, 4, 4), -300.0, dtype=dtype)])
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(3.6e5, rel=0.01)
    assert student.grad.isfinite().all()
    assert student.grad.any()


def test_maps_of_different_shapes_are_refused_not_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\).*\(2, 3, 4, 1\)"):
        hcl_loss([torch.zeros(2, 3, 4, 4)], [torch.zeros(2, 3, 4, 1)])


@pytest.mark.parametrize(("student", "teacher"), [(0, 0), (1, 2)])
def test_lists_without_partners_are_refused(student, teacher):
    maps = [torch.zeros(2, 3, 4, 4)] * 2
    with pytest.raises(ValueError, match=f"student_maps: has {student} levels, teacher_maps {teacher}"):
        hcl_loss(maps[:student], maps[:teacher])


def fusion(fuses=True, channels=3, middle=2, teacher_channels=5):
    torch.manual_seed(0)
    return AttentionFusion(channels, middle, teacher_channels, fuses).eval()


def test_the_deepest_level_is_reduced_and_expanded():
    module, feature_map = fusion(fuses=False), torch.randn(2, 3, 4, 4)
    output, fused = module(feature_map, None, (4, 4))
    assert torch.equal(fused, module.reduce(feature_map))
    assert torch.equal(output, module.expand(fused))
    assert output.shape == (2, 5, 4, 4)


def test_a_level_is_fused_with_the_deeper_one_by_a_sigmoid_of_both():
    """Written out for one pixel of one image, with nearest neighbours for the deeper map."""
    module, feature_map, deeper = fusion(), torch.randn(2, 3, 4, 4), torch.randn(2, 2, 2, 2)
    _, fused = module(feature_map, deeper, (4, 4))
    x, d = module.reduce(feature_map)[1, :, 3, 2].tolist(), deeper[1, :, 1, 1].tolist()
    convolution = module.attend[0]
    gates = []
    for row, bias in zip(convolution.weight[:, :, 0, 0].tolist(), convolution.bias.tolist(), strict=True):
        value = sum(w * v for w, v in zip(row, x + d, strict=True)) + bias
        gates.append(1 / (1 + math.exp(-value)))
    expected = [gates[0] * own + gates[1] * below for own, below in zip(x, d, strict=True)]
    assert fused[1, :, 3, 2].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [(2, 2), (8, 8)])
def test_both_results_have_the_teachers_size_by_nearest_neighbours(size):
    module, feature_map, deeper = fusion(), torch.randn(2, 3, 4, 4), torch.randn(2, 2, 1, 1)
    output, fused = module(feature_map, deeper, size)
    same = module(feature_map, deeper, (4, 4))[1]
    expected = same[:, :, ::2, ::2] if size == (2, 2) else same.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(fused, expected)
    torch.testing.assert_close(output, module.expand(expected))


def test_the_convolutions_have_the_published_shapes_and_ranges():
    """kaiming_uniform with a = 1: uniform in +-sqrt(3 / fan in)."""
    module = fusion(channels=64, middle=32, teacher_channels=48)
    for part, kernel, fan in ((module.reduce, 1, 64), (module.expand, 3, 32 * 9)):
        convolution, norm = part
        assert convolution.kernel_size == (kernel, kernel)
        assert convolution.bias is None
        assert isinstance(norm, torch.nn.BatchNorm2d)
        assert convolution.weight.abs().max().item() == pytest.approx(math.sqrt(3 / fan), rel=0.02)
    assert module.attend[0].weight.shape == (2, 64, 1, 1)
    assert module.attend[0].bias is not None


def test_terms_are_weighted_and_rise_with_the_warm_up():
    case = Case("reviewkd", ce_weight=0.5, kd_weight=3.0, warmup_epochs=4)
    student, teacher = case.student_out, case.teacher_out
    maps = [student.embedding[:, :, None, None], *(student.feature_maps[f"layer{i}"] for i in (3, 2, 1))]
    targets = [teacher.embedding[:, :, None, None], *(teacher.pre_activations[f"layer{i}"] for i in (3, 2, 1))]
    outputs, fused = [], None
    for fusion, one, target in zip(case.method.fusions, maps, targets, strict=True):
        output, fused = fusion(one, fused, target.shape[2:])
        outputs.append(output)
    expected = naive(outputs, targets)
    for epoch, warm in ((1, 0.25), (4, 1.0), (5, 1.0)):
        terms = case.terms(epoch)
        assert set(terms) == {"ce", "review"}
        assert terms["ce"].item() == pytest.approx(0.5 * cross_entropy(student.logits, case.batch.labels).item())
        assert terms["review"].item() == pytest.approx(warm * 3.0 * expected, rel=1e-4)


def test_the_teacher_is_compared_before_its_relu():
    maps = Case("reviewkd").teacher_out
    assert (maps.pre_activations["layer3"] < 0).any()
    assert torch.equal(maps.pre_activations["layer3"].relu(), maps.feature_maps["layer3"])


@pytest.mark.parametrize(
    ("student", "teacher", "middle", "parameters"),
    [
        ("resnet8x4", "resnet32x4", 256, 1_808_774),
        ("vgg8", "vgg13", 512, None),
        ("mobilenetv2", "resnet50_crd", 512, None),
    ],
)
def test_the_benchmarks_pairs_are_fused_at_the_published_width(student, teacher, middle, parameters):
    case = Case("reviewkd", student, teacher)
    assert {fusion.reduce[0].out_channels for fusion in case.method.fusions} == {middle}
    assert case.terms()["review"].isfinite()
    count = sum(weight.numel() for weight in case.method.parameters())
    assert parameters in (None, count)


def test_all_parts_are_trained():
    case = Case("reviewkd")
    of_student, of_method = case.trained()
    assert of_student == {name for name, _ in case.network.named_parameters()}
    assert of_method == {name for name, _ in case.method.named_parameters()}


def test_unequal_numbers_of_maps_are_refused_with_both_lists():
    with pytest.raises(ValueError, match="student has 3 .*stem, layer1.*teacher 4 .*block4"):
        Case("reviewkd", "resnet8", "vgg8")


@pytest.mark.parametrize("name", ["ce_weight", "kd_weight", "warmup_epochs"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        KnowledgeReview(**{name: -1})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_trains_in_each_precision(root, data, precision):
    stored_teacher(data)
    first, second = fit(digits_run("reviewkd", precision, warmup_epochs=0), data).history
    assert second["review"] < first["review"]
    assert second["ce"] < first["ce"]


def test_a_step_in_fp16_is_finite(root, data):
    training = training_of(
        digits_run("reviewkd", "fp16"), data, Teacher(build_model("resnet8", 10), pre_activations=True)
    )
    train_one_epoch(training)
    assert math.isfinite(training.history[0]["review"])


def test_an_interrupted_run_ends_in_the_same_bits(root, data):
    stored_teacher(data)
    run = digits_run("reviewkd")
    whole = fit(run, data)
    expected = weights(whole)
    artifacts.weights_path(whole.name).unlink()
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=1), force_retrain=True)
    assert same(weights(fit(run, data)), expected)
    assert set(expected) == set(build_model("resnet8", 10).state_dict())

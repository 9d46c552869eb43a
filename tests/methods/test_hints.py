import pytest
import torch
import torch.nn.functional as F
from training_fixtures import QUICK, Recorder, same, train_one_epoch, training_of, weights

from kdhelpers import Run, artifacts, fit, load_model
from kdhelpers.methods import METHODS, Context
from kdhelpers.methods.hints import Hints, build_regressor, hint_loss
from kdhelpers.methods.logit_matching import LogitMatching
from kdhelpers.models import FeatureExtractor, Outputs, build_model
from kdhelpers.training.teacher import Teacher


def naive(student, teacher):
    """The definition, in Python floats: the mean over all elements of (t - s)^2."""
    pairs = list(zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True))
    return sum((t - s) ** 2 for s, t in pairs) / len(pairs)


def pair_of_maps(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, 5, 2, generator=generator, dtype=dtype).unbind()


def test_equals_the_definition():
    student, teacher = pair_of_maps()
    assert hint_loss(student, teacher).item() == pytest.approx(naive(student, teacher), rel=1e-12)


def test_the_papers_half_squared_norm_is_a_constant_factor_away():
    student, teacher = pair_of_maps()
    papers = 0.5 * (teacher - student).flatten(1).norm(dim=1).square().mean()
    assert papers.item() == pytest.approx(hint_loss(student, teacher).item() * (4 * 5 * 2) / 2)


def test_gradcheck_in_float64():
    student, teacher = pair_of_maps()
    assert torch.autograd.gradcheck(lambda s: hint_loss(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_squared_in_float32(dtype):
    """300^2 is more than float16 holds; one image, one channel, one pixel."""
    student = torch.full((1, 1, 1, 1), 300.0, dtype=dtype, requires_grad=True)
    loss = hint_loss(student, torch.zeros(1, 1, 1, 1))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(9e4, rel=0.01)
    assert student.grad.isfinite().all()


def test_maps_of_different_shapes_are_refused_not_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 8, 4, 4\).*\(2, 8, 4, 1\)"):
        hint_loss(torch.zeros(2, 8, 4, 4), torch.zeros(2, 8, 4, 1))


@pytest.mark.parametrize(
    ("size", "wanted", "kernel", "stride", "transposed"),
    [(8, 8, 1, 1, False), (16, 8, 3, 2, False), (8, 16, 4, 2, True), (8, 6, 3, 1, False), (16, 4, 13, 1, False)],
)
def test_the_regressor_maps_one_shape_to_the_other_by_the_rule(size, wanted, kernel, stride, transposed):
    student, teacher = torch.rand(2, 3, size, size), torch.rand(2, 5, wanted, wanted)
    convolution, norm, relu = regressor = build_regressor(student, teacher)
    assert regressor(student).shape == teacher.shape
    assert (convolution.kernel_size, convolution.stride) == ((kernel, kernel), (stride, stride))
    assert isinstance(convolution, torch.nn.ConvTranspose2d) == transposed
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert isinstance(relu, torch.nn.ReLU)


def test_maps_that_no_regressor_joins_are_named():
    with pytest.raises(ValueError, match=r"student's map \(3, 4, 4\) to the teacher's \(5, 16, 16\)"):
        build_regressor(torch.rand(2, 3, 4, 4), torch.rand(2, 5, 16, 16))


def outputs_of(name, **options):
    return FeatureExtractor(build_model(name, 10, **options).eval())(torch.zeros(2, 3, 32, 32))


def built(student, teacher, **hyperparameters):
    method = Hints(**hyperparameters)
    method.build(Context(outputs_of(student), outputs_of(teacher), None, None, 10))
    return method


@pytest.mark.parametrize(
    ("student", "teacher", "layers", "kernel"),
    [
        ("vgg11", "vgg16", ("block2", "block2"), 1),
        ("resnet8", "resnet20", ("layer2", "layer2"), 1),
        ("vgg8", "resnet8", ("block2", "layer2"), 4),
        ("resnet8", "vgg8", ("layer2", "block2"), 3),
        ("resnet8", "resnet18", ("layer2", "layer2"), 1),
    ],
)
def test_the_default_layer_is_the_middle_stage_of_each(student, teacher, layers, kernel):
    method = built(student, teacher)
    assert (method.student_layer, method.teacher_layer) == layers
    assert method.regressor[0].kernel_size == (kernel, kernel)


def test_a_named_layer_is_taken_in_both_and_must_be_in_both():
    method = built("resnet8", "resnet8x4", layer="layer3")
    assert method.regressor[0].weight.shape == (256, 64, 1, 1)
    with pytest.raises(ValueError, match="layer = layer3: .* block0, block1"):
        built("resnet8", "vgg8", layer="layer3")


class OneView:
    """A batch as the loop makes it."""

    def __init__(self, view, labels):
        self.views, self.labels = (view,), labels


def ask(method, epoch, student="resnet8"):
    """The method's terms for two networks on a random batch, and what the student and the teacher put out."""
    torch.manual_seed(0)
    networks = FeatureExtractor(build_model(student, 10).eval()), Teacher(build_model("resnet8x4", 10))
    batch = OneView(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    method.eval()
    return method(*networks, batch, epoch), networks[0](batch.views[0]), networks[1](batch.views[0]), batch


def test_stages_follow_each_other():
    method = built(
        "resnet8", "resnet8x4", hint_epochs=2, hint_weight=7.0, temperature=2.0, ce_weight=0.2, kd_weight=3.0
    )
    assert method.stage_epochs == 2
    for epoch in (1, 2):
        terms, student, teacher, batch = ask(method, epoch)
        assert set(terms) == {"hint"}
        expected = 7 * naive(method.regressor(student.feature_maps["layer2"]), teacher.feature_maps["layer2"])
        assert terms["hint"].item() == pytest.approx(expected, rel=1e-4)
    terms, student, teacher, batch = ask(method, 3)
    matching = LogitMatching(temperature=2.0, ce_weight=0.2, kd_weight=3.0)
    assert terms == matching(lambda view: student, lambda view: teacher, batch, 3)


def test_joint_is_cross_entropy_and_the_hint_from_the_first_epoch():
    method = built("resnet8", "resnet8x4", mode="joint")
    assert method.stage_epochs == 0
    terms, student, teacher, batch = ask(method, 1)
    assert set(terms) == {"ce", "hint"}
    assert torch.equal(terms["ce"], F.cross_entropy(student.logits, batch.labels))
    expected = 100 * naive(method.regressor(student.feature_maps["layer2"]), teacher.feature_maps["layer2"])
    assert terms["hint"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["hint_epochs", "temperature", "ce_weight", "kd_weight"])
def test_joint_refuses_what_belongs_to_the_stages(name):
    with pytest.raises(ValueError, match=f"{name} = 7: belongs to mode two_stage"):
        Hints(mode="joint", **{name: 7})


@pytest.mark.parametrize("name", ["hint_epochs", "hint_weight", "temperature", "ce_weight", "kd_weight"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        Hints(**{name: -1})


@pytest.fixture
def teacher(root, data, monkeypatch):
    monkeypatch.setitem(METHODS, "hints", Hints)
    return fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)


def hints_run(epochs=2, optimizer="sgd", precision="fp32", **hyperparameters):
    settings = QUICK | {"epochs": epochs, "precision": precision}
    return Run(**settings, method="hints", teacher="resnet8", optimizer=optimizer, hyperparameters=hyperparameters)


def training(run, data, teacher):
    return training_of(run, data, Teacher(teacher.model))


UPPER = ("layer3", "fc")


def copied(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_the_first_stage_leaves_the_upper_layers_bit_identical(data, teacher):
    """Weights, BatchNorm statistics and momentum, though the optimiser has momentum and weight decay."""
    one = training(hints_run(hint_epochs=1), data, teacher)
    start = copied(one.network)
    regressor = one.method.regressor[0].weight.clone()
    train_one_epoch(one)
    now = one.network.state_dict()
    assert [name for name in start if torch.equal(start[name], now[name])] == [n for n in start if n.startswith(UPPER)]
    for name, parameter in one.network.named_parameters():
        momentum = one.optimizer.state[parameter]["momentum_buffer"]
        assert bool(momentum.any()) != name.startswith(UPPER)
    assert not torch.equal(regressor, one.method.regressor[0].weight)


def test_the_second_stage_trains_all_of_the_student_and_lets_the_regressor_rest(data, teacher):
    one = training(hints_run(hint_epochs=1), data, teacher)
    train_one_epoch(one)
    start, regressor = copied(one.network), copied(one.method)
    train_one_epoch(one)
    assert not [name for name, value in one.network.state_dict().items() if torch.equal(start[name], value)]
    assert same(regressor, one.method.state_dict())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_stages_train_and_the_regressor_is_not_in_the_weights(data, teacher, precision):
    trained = fit(hints_run(epochs=3, precision=precision, hint_epochs=2), data)
    first, second, third = trained.history
    assert second["hint"] < first["hint"]
    assert {"ce", "kd"} <= set(third)
    assert "hint" not in third
    assert (first["train_top1_pct"], second["train_top1_pct"]) == (None, None)  # nothing reached the logits
    assert trained.record["selection"]["epoch"] == 3  # by chance an untrained head may score best
    assert set(weights(trained)) == set(build_model("resnet8", 10).state_dict())
    assert same(load_model(trained.name).state_dict(), weights(trained))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_joint_trains_in_each_precision(data, teacher, precision):
    trained = fit(hints_run(precision=precision, mode="joint"), data)
    first, second = trained.history
    assert second["hint"] < first["hint"]
    assert second["ce"] < first["ce"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_interrupted_between_the_stages_ends_in_the_same_bits(data, teacher, optimizer):
    run = hints_run(epochs=3, optimizer=optimizer, hint_epochs=1)
    whole = fit(run, data)
    expected = weights(whole)
    artifacts.weights_path(whole.name).unlink()
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=1), force_retrain=True)
    progress = Recorder()
    resumed = fit(run, data, progress=progress)
    assert progress.done == 1
    assert same(weights(resumed), expected)
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]


def test_the_first_stage_never_runs_the_upper_layers():
    method = built("resnet8", "resnet8x4").eval()
    network = FeatureExtractor(build_model("resnet8", 10).eval())
    network.model.layer3.forward = None  # calling it would raise
    maps = outputs_of("resnet8x4").feature_maps
    terms = method(network, lambda view, stop_at: Outputs(None, None, maps), OneView(torch.rand(2, 3, 32, 32), None), 1)
    assert terms["hint"].isfinite()

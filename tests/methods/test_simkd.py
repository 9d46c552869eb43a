import pytest
import torch
from torch import nn
from torch.nn import functional as F
from training_fixtures import QUICK, Recorder, same, train_one_epoch, training_of, weights

from kdhelpers import Run, artifacts, fit, fit_sweep, infer, load_model
from kdhelpers.artifacts import weights_path
from kdhelpers.evaluation.metrics import evaluate
from kdhelpers.methods import Context
from kdhelpers.methods.base import Classifier
from kdhelpers.methods.simkd import ReusedClassifier, SimKD, simkd_projector
from kdhelpers.models import FeatureExtractor, HeadedNetwork, build_model, count_parameters
from kdhelpers.training.teacher import Teacher
from kdhelpers.weights.head import head_path

LAYERS = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 3


def naive(student, teacher):
    """The mean over images, channels and pixels of (t - s)^2, in Python floats."""
    pairs = list(zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True))
    return sum((t - s) ** 2 for s, t in pairs) / len(pairs)


@pytest.mark.parametrize(
    ("student", "teacher", "published"), [(256, 256, 214_016), (512, 512, 854_016), (1280, 2048, 12_853_248)]
)
def test_the_projector_has_the_published_size(student, teacher, published):
    assert count_parameters(simkd_projector(student, teacher)) == published


def test_the_projector_is_the_papers():
    projector = simkd_projector(6, 20, factor=4)
    assert [type(layer) for layer in projector] == LAYERS
    convolutions = [layer for layer in projector if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size for layer in convolutions] == [(1, 1), (3, 3), (1, 1)]
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == [(6, 5), (5, 5), (5, 20)]
    assert all(layer.bias is None for layer in convolutions)
    assert projector(torch.rand(2, 6, 7, 5)).shape == (2, 20, 7, 5)
    with pytest.raises(ValueError, match="factor = 21: leaves none of the teacher's 20 channels"):
        simkd_projector(6, 20, factor=21)


def test_a_perfect_projector_is_the_teacher():
    torch.manual_seed(0)
    teacher, images = build_model("resnet8", 10).eval(), torch.rand(3, 3, 32, 32)
    outputs = FeatureExtractor(teacher)(images)
    head = ReusedClassifier(nn.Identity(), teacher.fc, (8, 8))
    torch.testing.assert_close(head(outputs.final_map), outputs.logits)
    torch.testing.assert_close(HeadedNetwork(teacher, head)(images), outputs.logits)


def outputs_of(name):
    return FeatureExtractor(build_model(name, 10).eval())(torch.zeros(2, 3, 32, 32))


def built(student="resnet8", teacher="resnet8x4", **hyperparameters):
    torch.manual_seed(0)
    method, network = SimKD(**hyperparameters), build_model(teacher, 10)
    outputs = FeatureExtractor(network.eval())(torch.zeros(2, 3, 32, 32))
    classifier = Classifier(network.get_submodule(network.return_nodes.classifier))
    method.build(Context(outputs_of(student), outputs, None, None, 10, teacher_classifier=classifier))
    return method, network


class OneView:
    def __init__(self, view):
        self.views, self.labels = (view,), None


@pytest.mark.parametrize(
    ("student", "teacher", "size"),
    [("resnet8", "resnet8x4", 8), ("resnet8", "vgg8", 4), ("mobilenetv2", "resnet8", 2), ("wrn_16_1", "wrn_16_2", 8)],
)
def test_the_larger_final_map_is_pooled_to_the_smaller_and_the_term_is_weighted(student, teacher, size):
    method, network = built(student, teacher, hint_weight=7.0)
    learner = FeatureExtractor(HeadedNetwork(build_model(student, 10).eval(), method.predicting_head()).eval())
    images = torch.rand(2, 3, 32, 32)
    theirs = FeatureExtractor(network)(images).final_map
    terms = method(learner, FeatureExtractor(network), OneView(images), 1)
    assert set(terms) == {"hint"}
    final_map = FeatureExtractor(learner.model.features.model)(images).final_map
    final_map, theirs = (F.adaptive_avg_pool2d(value, size) for value in (final_map, theirs))
    projected = method.head.projector(final_map)
    assert projected.shape == theirs.shape
    assert terms["hint"].item() == pytest.approx(7 * naive(projected, theirs), rel=1e-4)


def test_a_head_is_rebuilt_from_its_tensors():
    for classifier in (nn.Linear(20, 7), nn.Linear(20, 7, bias=False)):
        for factor in (1, 2, 3, 7, 20):
            head = ReusedClassifier(simkd_projector(6, 20, factor), classifier, (5, 4)).eval()
            twin = SimKD.load_head(head.state_dict()).eval()
            images = torch.rand(2, 6, 8, 8)
            assert torch.equal(twin(images), head(images))
            assert twin.pixels == (5, 4)


@pytest.mark.parametrize("name", ["hint_weight", "factor"])
def test_hyperparameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = -1"):
        SimKD(**{name: -1})


@pytest.fixture
def teacher(root, data):
    return fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)


def simkd_run(**changes):
    return Run(**QUICK | changes, method="simkd", teacher="resnet8")


def test_the_head_predicts_everywhere(data, teacher):
    """Trained, loaded and cached: one network, whose figures are those of the record and the history."""
    trained = fit(simkd_run(epochs=3, lr=0.1), data)
    assert trained.history[-1]["hint"] < trained.history[0]["hint"]
    assert all(row["train_top1_pct"] > 0 and row["val_nll"] > 0 for row in trained.history)
    images, own = torch.rand(5, 3, 16, 16), load_model(trained.name, head=False)
    loaded, cached = load_model(trained.name), fit(simkd_run(epochs=3, lr=0.1), data)
    assert cached.cached
    for network in (loaded, cached.model):
        torch.testing.assert_close(network(images), trained.model(images))
    tested = evaluate(infer(loaded, data))
    assert trained.metrics["test_top1_pct"] == tested["top1_pct"]
    assert trained.metrics["test_nll"] == pytest.approx(tested["nll"])
    assert not torch.equal(own(images), loaded(images))
    assert torch.equal(loaded.head.classifier.weight, teacher.model.fc.weight)
    with pytest.raises(ValueError, match=r"start_from = student_simkd_.*come from a head \(simkd\)"):
        fit(Run(**QUICK, start_from=trained.name), data)


def test_the_students_own_classifier_and_the_teachers_are_never_trained(data, teacher):
    one = training_of(simkd_run(), data, Teacher(teacher.model))
    own, reused = one.network.fc.weight.clone(), one.method.head.classifier.weight.clone()
    body, projector = one.network.conv1.weight.clone(), one.method.head.projector[0].weight.clone()
    train_one_epoch(one)
    assert torch.equal(one.network.fc.weight, own)
    assert torch.equal(one.method.head.classifier.weight, reused)
    assert not any(parameter.requires_grad for parameter in one.method.head.classifier.parameters())
    assert one.method.head.classifier is not one.module.teacher.classifier, "students in lockstep share a teacher"
    assert not torch.equal(one.network.conv1.weight, body)
    assert not torch.equal(one.method.head.projector[0].weight, projector)
    assert torch.equal(reused, teacher.model.fc.weight)
    hits = infer(one.model, data, "val").correct.double().mean().item()
    assert one.history[0]["val_top1_pct"] == pytest.approx(100 * hits)


def test_files_and_record_hold_the_head_apart(data, teacher):
    trained = fit(simkd_run(), data)
    path = head_path(trained.weights_path)
    assert trained.record["head"] == {"file": path.name, "sha256": artifacts.sha256(path)}
    assert artifacts.load_json(trained.weights_path.with_suffix(".json"))["head"] == trained.record["head"]
    own, head = trained.model.features.model, trained.model.head
    assert same(weights(trained), own.state_dict())
    assert same(artifacts.load_tensors(path), head.state_dict())
    extra = count_parameters(head) - count_parameters(own.fc)
    assert trained.record["model"]["extra_parameters"] == extra == count_parameters(head.projector)
    assert trained.record["model"]["parameters"] == count_parameters(own)


def test_a_head_that_is_missing_or_another_is_refused_and_trained_again(data, teacher, capsys):
    trained = fit(simkd_run(), data)
    path = head_path(trained.weights_path)
    content = path.read_bytes()
    artifacts.save_tensors(path, {"other": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"its content is not what .*\.json describes; .* load_model\(..., head=False"):
        load_model(trained.name)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"\.head: is missing, and the student predicts by this head; restore"):
        load_model(trained.name)
    assert load_model(trained.name, head=False).fc.out_features == 10
    assert not fit(simkd_run(), data).cached
    assert "training again" in capsys.readouterr().err
    assert path.read_bytes() == content


def test_a_copy_under_another_name_has_the_head(data, teacher):
    first = fit(simkd_run(), data)
    fit(simkd_run(name="mine"), data)
    assert head_path(weights_path("mine")).read_bytes() == head_path(first.weights_path).read_bytes()
    head_path(weights_path("mine")).unlink()
    fit(simkd_run(name="mine"), data)  # makes the copy whole
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(load_model("mine")(images), first.model(images))


@pytest.mark.parametrize("selection", ["best_val", "last"])
def test_an_interrupted_run_ends_in_the_same_bits(data, teacher, selection):
    run = simkd_run(epochs=3, selection=selection)
    whole = fit(run, data)
    expected, head = weights(whole), artifacts.load_tensors(head_path(whole.weights_path))
    whole.weights_path.unlink()
    with pytest.raises(KeyboardInterrupt):
        fit(run, data, progress=Recorder(stop_after=2), force_retrain=True)
    resumed = fit(run, data, progress=Recorder())
    assert same(weights(resumed), expected)
    assert same(artifacts.load_tensors(head_path(resumed.weights_path)), head)
    assert resumed.metrics["test_nll"] == whole.metrics["test_nll"]


def test_students_in_lockstep_end_as_they_would_alone(data, teacher):
    run, other = simkd_run(), Run(**QUICK, method="lm", teacher="resnet8")
    alone = fit(run, data)
    together, _ = fit_sweep([run, other], data, force_retrain=True)
    assert same(weights(together), weights(alone))
    assert together.metrics["test_nll"] == alone.metrics["test_nll"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns(data, teacher, precision):
    trained = fit(simkd_run(epochs=3, precision=precision), data)
    assert trained.history[-1]["hint"] < trained.history[0]["hint"]


def test_it_teaches_another_student_with_its_head(data, teacher):
    first = fit(simkd_run(), data)
    student = fit(Run(**QUICK, method="simkd", teacher=first.name), data)
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(student.load_teacher()(images), first.model(images))
    assert torch.equal(student.model.head.classifier.weight, first.model.head.classifier.weight)

"""The linear probe: it minimises the loss, and changes only the network's classifier."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from fake_device import FakeDevice
from training_fixtures import QUICK, Recorder, same

from kdhelpers import Run, build_model, evaluate, fit, infer, load_model
from kdhelpers.data import Split
from kdhelpers.evaluation import linear_probe
from kdhelpers.evaluation.linear_probe import (
    WEIGHT_DECAYS,
    choose_probe,
    fit_probe,
    probe_accuracy_pct,
    probe_predictions,
    softmax_regression,
)
from kdhelpers.evaluation.predictions import Predictions

CLASSES = 4


def clouds(count=200, dim=6, classes=CLASSES, spread=1.5, seed=0):
    """Overlapping clouds, one per class: features float64 [N, d] and labels [N]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return centres[labels] + spread * noise, labels


def zeros(features, classes=CLASSES):
    return torch.zeros(classes, features.shape[1], dtype=features.dtype), torch.zeros(classes, dtype=features.dtype)


def embedding_predictions(features, labels):
    """Predictions with these embeddings; a probe does not use the logits."""
    return Predictions(torch.zeros(len(labels), CLASSES), features.float(), labels, torch.arange(len(labels)))


def right_pct(predictions, weight, bias):
    return 100 * ((predictions.embeddings @ weight.T + bias).argmax(1) == predictions.labels).double().mean().item()


@pytest.mark.parametrize("weight_decay", [1e-2, 1e-4])
def test_softmax_regression_finds_what_sklearn_finds(weight_decay):
    from sklearn.linear_model import LogisticRegression

    features, labels = clouds()
    weight, bias = softmax_regression(features, labels, *zeros(features), weight_decay, iterations=2000)
    strength = 1 / (len(labels) * weight_decay)  # sklearn: C sum CE + ||w||^2 / 2, the bias free as well
    oracle = LogisticRegression(C=strength, tol=1e-12, max_iter=10_000).fit(features.numpy(), labels.numpy())
    torch.testing.assert_close(weight, torch.from_numpy(oracle.coef_), rtol=1e-4, atol=1e-4)
    centred = bias - bias.mean()  # only differences of biases matter, nothing says what their mean is
    expected = torch.from_numpy(oracle.intercept_)
    torch.testing.assert_close(centred, expected - expected.mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weight_decay", WEIGHT_DECAYS)
def test_at_the_end_the_gradient_is_zero(weight_decay):
    """As near as L-BFGS comes in single-precision tolerances, in the iterations that a probe has."""
    features, labels = clouds()
    weight, bias = softmax_regression(features, labels, *zeros(features), weight_decay)
    residual = (features @ weight.T + bias).softmax(1) - F.one_hot(labels, CLASSES)
    grad = residual.T @ features / len(labels) + weight_decay * weight
    assert grad.abs().max() < 3e-5
    assert residual.mean(0).abs().max() < 3e-5


def test_the_start_is_left_alone_and_the_minimum_does_not_depend_on_it():
    features, labels = clouds()
    start = [value + 1 for value in zeros(features)]
    kept = [value.clone() for value in start]
    there = softmax_regression(features, labels, *start, 1e-2)
    assert same(dict(enumerate(start)), dict(enumerate(kept)))
    assert not any(value.requires_grad for value in there)
    from_zero = softmax_regression(features, labels, *zeros(features), 1e-2)
    torch.testing.assert_close(there[0], from_zero[0], rtol=1e-3, atol=1e-3)


def test_it_trains_where_gradients_are_switched_off():
    features, labels = clouds()
    with torch.no_grad():
        weight, _ = softmax_regression(features, labels, *zeros(features), 1e-2)
    assert weight.abs().max() > 0.1


def test_standardisation_is_folded_into_weight_and_bias():
    features, labels = clouds()
    features = (features * torch.tensor([1e-3, 1, 50, 1, 1, 0.1]) + torch.tensor([0, 3, -100, 0, 7, 0.5])).float()
    weight, bias, facts = choose_probe(embedding_predictions(features, labels), None, CLASSES)
    standard = (features - features.mean(0)) / features.std(0)
    of_standard = softmax_regression(standard, labels, *zeros(standard), 1e-4)
    expected = standard @ of_standard[0].T + of_standard[1]
    torch.testing.assert_close(features @ weight.T + bias, expected, rtol=1e-4, atol=1e-4)
    assert facts == {
        "weight_decay": 1e-4,
        "train_top1_pct": right_pct(embedding_predictions(features, labels), weight, bias),
    }


def test_the_scale_of_an_embedding_makes_no_difference():
    features, labels = clouds()
    weight, bias, _ = choose_probe(embedding_predictions(features, labels), None, CLASSES)
    scaled, same_bias, _ = choose_probe(embedding_predictions(features * 1024, labels), None, CLASSES)
    torch.testing.assert_close(scaled * 1024, weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(same_bias, bias, rtol=1e-3, atol=1e-3)


def narrow(seed):
    """Three classes in a row, the middle one narrow: only large weights find it."""
    features = 2 * torch.rand(400, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    return features, (features[:, 0] > -0.05).long() + (features[:, 0] > 0.05).long()


def many(seed):
    """Few images of many features, of which large weights learn the noise."""
    return clouds(count=48, dim=40, spread=3, seed=seed)


@pytest.mark.parametrize("problem", [many, narrow])
def test_held_out_images_choose_the_weight_decay(problem):
    train, held_out = embedding_predictions(*problem(0)), embedding_predictions(*problem(7))
    weight, bias, facts = choose_probe(train, held_out, CLASSES)
    mean, std = train.embeddings.mean(0), train.embeddings.std(0)
    found, start = {}, zeros(train.embeddings)
    for decay in WEIGHT_DECAYS:
        start = softmax_regression((train.embeddings - mean) / std, train.labels, *start, decay)
        found[decay] = right_pct(held_out, start[0] / std, start[1] - (start[0] / std) @ mean)
    assert len(set(found.values())) > 1, "there is nothing to choose"
    assert facts["weight_decay"] == max(found, key=found.get)
    assert facts["val_top1_pct"] == right_pct(held_out, weight, bias) == max(found.values())
    assert facts["train_top1_pct"] == right_pct(train, weight, bias)


def test_of_weight_decays_that_do_equally_well_the_strongest_is_taken():
    easy = embedding_predictions(*clouds(spread=0.05))
    assert choose_probe(easy, easy, CLASSES)[2] == {
        "weight_decay": WEIGHT_DECAYS[0],
        "train_top1_pct": 100,
        "val_top1_pct": 100,
    }


def test_a_unit_that_never_changes_gets_no_weight_and_spoils_nothing():
    features, labels = clouds()
    features[:, 2], features[:, 4] = 0, 0.25
    weight, bias, facts = choose_probe(embedding_predictions(features, labels), None, CLASSES)
    assert weight[:, [2, 4]].abs().max() == 0
    kept = choose_probe(embedding_predictions(features[:, [0, 1, 3, 5]], labels), None, CLASSES)
    torch.testing.assert_close(weight[:, [0, 1, 3, 5]], kept[0], rtol=1e-3, atol=1e-3)
    assert facts == kept[2]


def test_one_class_and_separable_classes_stay_finite():
    features, labels = clouds(spread=0)
    separable = choose_probe(embedding_predictions(features + 0.01 * clouds(spread=1)[0], labels), None, CLASSES)
    one_class = choose_probe(embedding_predictions(features, torch.full_like(labels, 2)), None, CLASSES)
    for weight, bias, facts in (separable, one_class):
        assert weight.isfinite().all()
        assert bias.isfinite().all()
        assert facts["train_top1_pct"] == 100


@pytest.fixture
def network():
    torch.manual_seed(3)
    return build_model("resnet8", 10)


def test_the_classifier_alone_changes_and_the_same_way_every_time(network, data):
    before, twin = copy.deepcopy(network.state_dict()), copy.deepcopy(network)
    facts = fit_probe(network, data)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert network.training
    torch.manual_seed(4)
    assert fit_probe(twin, data) == facts
    assert same(twin.state_dict(), network.state_dict())
    assert facts["val_top1_pct"] == evaluate(infer(network, data, "val"))["top1_pct"]
    assert facts["train_top1_pct"] == evaluate(infer(network, data, "train"))["top1_pct"]


def test_the_test_images_are_not_used(network, data):
    blind = dataclasses.replace(data, test=Split(data.test.images[:0], data.test.labels[:0]))
    twin = copy.deepcopy(network)
    assert fit_probe(network, data) == fit_probe(twin, blind)
    assert same(twin.state_dict(), network.state_dict())


def test_without_held_out_images_there_is_one_weight_decay(network, data):
    facts = fit_probe(network, dataclasses.replace(data, val=Split(data.val.images[:0], data.val.labels[:0])))
    assert set(facts) == {"weight_decay", "train_top1_pct"}
    assert facts["weight_decay"] == 1e-4


def test_a_classifier_that_is_not_linear_is_refused(network, data):
    network.fc = torch.nn.Sequential(network.fc)
    with pytest.raises(ValueError, match="network: its classifier is Sequential, not Linear"):
        fit_probe(network, data)


def test_a_contrastive_training_ends_with_a_probe_in_record_and_weights(root, data):
    trained = fit(Run(**QUICK, method="supcon", selection="last"), data, progress=Recorder())
    probe, metrics = trained.record["probe"], trained.metrics
    assert set(probe) == {"weight_decay", "train_top1_pct", "val_top1_pct"}
    assert metrics["val_top1_pct"] == probe["val_top1_pct"]
    assert not any("val_top1_pct" in row for row in trained.history)
    stored = load_model(trained.name)
    assert same(stored.state_dict(), trained.model.state_dict())
    assert evaluate(infer(stored, data, "test"))["top1_pct"] == metrics["test_top1_pct"]
    assert evaluate(infer(stored, data, "val"))["top1_pct"] == metrics["val_top1_pct"]
    again = copy.deepcopy(stored)
    torch.nn.init.zeros_(again.fc.weight)
    torch.nn.init.zeros_(again.fc.bias)
    assert fit_probe(again, data) == probe


def test_a_training_with_a_classifier_of_its_own_has_no_probe(root, data):
    assert fit(Run(**QUICK | {"epochs": 1}), data, progress=Recorder()).record["probe"] is None


def test_the_accuracy_of_a_probe_is_that_of_the_training_images_fit_on_the_test_images():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    embeddings = torch.eye(3)[labels] + torch.randn(60, 3, generator=generator)
    train, test = (
        Predictions(torch.zeros(30, 3), embeddings[part], labels[part], torch.arange(30))
        for part in (slice(30), slice(30, 60))
    )
    weight, bias, _ = choose_probe(train, None, 3)
    hits = ((test.embeddings @ weight.T + bias).argmax(1) == test.labels).double().mean()
    assert probe_accuracy_pct(train, test) == 100 * hits.item() != probe_accuracy_pct(train, train)


def test_a_probe_is_fitted_on_the_gpu_and_comes_back(monkeypatch):
    train, test = (embedding_predictions(*clouds(seed=seed)) for seed in (0, 7))
    expected = probe_predictions(train, test).logits
    with FakeDevice("meta") as gpu:
        monkeypatch.setattr(linear_probe, "pick_device", lambda device=None: device or gpu.device)
        logits = probe_predictions(train, test).logits
        assert gpu.operators.count("aten::_log_softmax") > 10  # a step of L-BFGS evaluates the loss several times
        del gpu.operators[:]
        choose_probe(train, None, CLASSES, torch.device("cpu"))  # a device that is given
    assert not gpu.operators
    assert logits.device.type == "cpu"
    torch.testing.assert_close(logits, expected)


def test_a_networks_probe_is_fitted_on_its_own_device(monkeypatch, network, data):
    seen = []

    def choose(train, held_out, classes, device):
        seen.append(device)
        return choose_probe(train, held_out, classes, device)

    monkeypatch.setattr(linear_probe, "choose_probe", choose)
    monkeypatch.setattr(linear_probe, "pick_device", lambda device=None: device or torch.device("cuda"))
    fit_probe(network, data)
    assert seen == [torch.device("cpu")]

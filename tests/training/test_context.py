"""What a method gets before training: final maps, maps before activation, live classifiers; and what is refused."""

import pytest
import torch
from torch import nn
from training_fixtures import QUICK, training_of

from kdhelpers import Run, build_model
from kdhelpers.methods import METHODS, Method
from kdhelpers.methods.base import Classifier
from kdhelpers.models import MODELS, Architecture
from kdhelpers.training.teacher import Teacher


class Reader(Method):
    """Reads every part of the outputs, and pulls the student's map through both classifiers."""

    title = "reader"
    reads = ("logits", "feature_maps", "final_map", "pre_activations")

    def build(self, context):
        self.context, self.classifiers = context, (context.student_classifier, context.teacher_classifier)

    def forward(self, student, teacher, batch, epoch):
        ours, theirs = student(batch.views[0]), teacher(batch.views[0])
        assert theirs.pre_activations["layer2"].min() < 0
        assert ours.pre_activations is None
        cells = [classify(ours.final_map.flatten(2).mT) for classify in self.classifiers]
        return {"cells": sum(cell.square().mean() for cell in cells) + theirs.final_map.mean()}


class User(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(4, num_classes))

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(METHODS, "reader", Reader)
    monkeypatch.setitem(MODELS, "user", Architecture(User, {"stem": "body.0", "body": "body"}, "head"))


def training(data, student="resnet8", teacher="resnet8", before_relu=True):
    torch.manual_seed(0)
    network = build_model(teacher, 10)
    network.requires_grad_(True)
    run = Run(**QUICK | {"model": student}, method="reader", teacher=teacher)
    return training_of(run, data, Teacher(network, pre_activations=before_relu)), network


def test_classifiers_are_live_and_belong_to_their_networks_alone(root, data):
    one, network = training(data)
    own, taught = one.method.classifiers
    assert not list(one.method.parameters())
    assert not one.method.state_dict()
    assert own.weight is one.network.fc.weight
    assert torch.equal(taught.weight, network.fc.weight)
    before = [own.weight.clone(), taught.weight.clone()]
    one.begin_epoch()
    one.step(next(one.batches.epoch(1)))
    assert own.weight.grad.any()
    assert not torch.equal(own.weight, before[0])
    assert torch.equal(taught.weight, before[1])
    assert not taught.weight.requires_grad
    trained = {id(parameter) for group in one.optimizer.param_groups for parameter in group["params"]}
    assert id(taught.weight) not in trained
    assert id(own.weight) in trained


def test_a_classifier_takes_any_leading_shape_and_the_embeddings_give_the_logits(root, data):
    one, network = training(data)
    outputs = one.method.context.teacher_outputs
    classify = one.method.context.teacher_classifier
    torch.testing.assert_close(classify(outputs.embedding), outputs.logits)
    assert classify(torch.zeros(2, 5, 7, 64)).shape == (2, 5, 7, 10)
    assert classify.weight.shape == (10, 64)


def test_a_classifier_without_a_weight_of_classes_by_width_is_refused_with_its_owner():
    for module in (nn.Sequential(nn.Linear(4, 3)), nn.Conv2d(4, 3, 1)):
        with pytest.raises(ValueError, match=f"model = mine: its classifier is {type(module).__name__}, without a wei"):
            _ = Classifier(module, "model = mine").weight


def test_the_teachers_classifier_keeps_the_precision_of_its_file(root, data):
    torch.manual_seed(0)
    network = build_model("resnet8", 10)
    teacher = Teacher(network, dtype=torch.bfloat16)
    assert teacher.classifier.weight.dtype == torch.float32
    assert teacher.features.model.fc.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("student", "teacher", "before_relu", "message"),
    [
        ("user", "resnet8", True, r'model = user: .* does not give pooling, and .* reads final_map; .*"avgpool"'),
        ("resnet8", "user", True, "teacher = user: its Architecture does not give pooling"),
        ("resnet8", "resnet8", False, "teacher = resnet8: its Architecture does not give pre_activations"),
    ],
)
def test_a_network_that_lacks_what_the_method_reads_is_refused(root, data, student, teacher, before_relu, message):
    with pytest.raises(ValueError, match=message):
        training(data, student, teacher, before_relu)

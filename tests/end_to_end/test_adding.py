"""A method, a network and a data set are each added by one new file and one line in a registry."""

import importlib.util

import pytest
from training_fixtures import QUICK

from kdhelpers import DATASETS, METHODS, MODELS, Run, fit, load_model
from kdhelpers.cli.listing import listing

METHOD = '''
"""Squared difference of the logits: a method in one file."""

import torch.nn.functional as F

from kdhelpers.methods.base import Method
from kdhelpers.methods.parts.ranges import Weight


class LogitDifference(Method):
    """Cross-entropy, plus the squared difference of the logits."""

    title = "logit difference"

    weight: Weight = 0.1

    def forward(self, student, teacher, batch, epoch):
        view = batch.views[0]
        logits = student(view).logits.float()
        difference = F.mse_loss(logits, teacher(view).logits.float())
        return {"ce": F.cross_entropy(logits, batch.labels), "difference": self.weight * difference}
'''
NETWORK = '''
"""One convolution: a network in one file."""

from torch import nn

from kdhelpers.models.architecture import Architecture


def build(num_classes):
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))


ARCHITECTURES = {"tiny": Architecture(build, {"stem": "0"}, "3")}
'''
DATA_SET = '''
"""Bright and dark squares: a data set in one file."""

import torch

from kdhelpers.data.dataset import Split
from kdhelpers.data.readers.arrays import Raw


def read(image_size):
    labels = torch.arange(120) % 2
    noise = torch.randint(0, 100, (120, 3, image_size, image_size), generator=torch.Generator().manual_seed(0))
    images = (noise + 150 * labels[:, None, None, None]).to(torch.uint8)
    splits = {"train": Split(images[:80], labels[:80]), "test": Split(images[80:], labels[80:])}
    return Raw(splits, ["dark", "bright"], "made in Python")
'''


@pytest.fixture
def module_of(tmp_path):
    def load(text):
        path = tmp_path / "added.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("added", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_a_method(root, data, module_of, monkeypatch):
    monkeypatch.setitem(METHODS, "difference", module_of(METHOD).LogitDifference)
    fit(Run(**QUICK | {"epochs": 1}, role="teacher"), data)
    options = {"teacher": "resnet8", "hyperparameters": {"weight": "0.5"}}
    trained = fit(Run(**QUICK | {"epochs": 1}, method="difference", **options), data)
    assert trained.name == "student_difference_resnet8_digits"
    assert set(trained.history[0]) >= {"ce", "difference"}
    assert trained.run.hyperparameters == {"weight": 0.5}
    assert fit(trained.run, data).cached
    with pytest.raises(ValueError, match=r"weight = -1.0: must lie in \[0, 1000000.0\]"):
        Run(method="difference", teacher="resnet8", hyperparameters={"weight": -1})
    with pytest.raises(ValueError, match="unknown gamma; known: weight"):
        Run(method="difference", teacher="resnet8", hyperparameters={"gamma": 1})
    assert "difference  " in listing("methods")


def test_a_network(root, data, module_of, monkeypatch):
    for name, architecture in module_of(NETWORK).ARCHITECTURES.items():
        monkeypatch.setitem(MODELS, name, architecture)
    trained = fit(Run(**QUICK | {"epochs": 1, "model": "tiny"}), data)
    assert trained.name == "student_si_tiny_digits"
    assert load_model(trained.name)[3].out_features == 10
    assert "tiny" in listing("models")


def test_a_data_set(root, module_of, monkeypatch):
    source = type(DATASETS["digits"])
    monkeypatch.setitem(DATASETS, "squares", source("squares", image_size=16, read=module_of(DATA_SET).read))
    trained = fit(Run(**QUICK | {"epochs": 1, "lr": 0.05}, dataset="squares"))
    assert trained.record["data"] | {"hash": ""} == {
        "name": "squares",
        "image_size": 16,
        "classes": 2,
        "hash": "",
        "train": 72,
        "val": 8,
        "test": 40,
    }
    assert trained.metrics["test_top1_pct"] >= 50
    assert "squares" in listing("data")

"""Networks of one's own whose code does what it must not: each ends as one line."""

import sys

import pytest
import torch

from kdhelpers.models import FeatureExtractor, build_model

HOSTILE = """
import sys
from functools import partial

import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body, self.relu = nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True)
        self.head = nn.Linear(8, num_classes)

    def embedding(self, images):
        return self.relu(self.body(images)).mean((2, 3))

    def forward(self, images):
        return self.head(self.embedding(images))


class Auxiliary(Plain):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.second = nn.Linear(8, 4)

    def forward(self, images):
        logits = self.head(self.embedding(images))
        self.second(self.embedding(images))
        return logits


class Convolution(Plain):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, images):
        return self.head(self.embedding(images)[:, :, None, None]).flatten(1)


class Raises(Plain):
    def __init__(self, num_classes):
        raise RuntimeError("no\\nluck")


class Exits(Plain):
    def __init__(self, num_classes):
        sys.exit(3)


class Changes(Plain):
    def forward(self, images):
        return super().forward(images.sub_(0.5))


def half(num_classes):
    return Plain(num_classes).half()


class InTraining(Plain):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


instance, part, number = Plain(10), partial(Plain, 10), int
"""


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    (tmp_path / "hostile_networks.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "hostile_networks"
    sys.modules.pop("hostile_networks", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Raises", "cannot be built .RuntimeError: no luck.; mend the code or model_options"),
        ("Exits", "cannot be built .SystemExit: 3"),
        ("Changes", "changes its input in place"),
        ("half", "its parameter body.weight is float16; build it in float32"),
        ("instance", "is a Plain; name a class or function"),
        ("part", "is a partial; name a class or function"),
        ("number", "is not in a file; write the code into a .py file"),
    ],
)
def test_code_that_does_what_it_must_not_ends_as_one_line(hostile, name, message):
    with pytest.raises(ValueError, match=f"model = {hostile}:{name}: {message}") as caught:
        build_model(f"{hostile}:{name}", 10)
    assert "\n" not in str(caught.value)


def test_a_file_that_exits_when_it_is_imported_does_not_end_the_process(tmp_path):
    (tmp_path / "exits.py").write_text("raise SystemExit(5)")
    with pytest.raises(ValueError, match="cannot be imported .SystemExit: 5"):
        build_model(f"{tmp_path}/exits.py:Net", 10)


def test_the_classifier_is_found_before_an_auxiliary_one_and_as_a_convolution(hostile):
    for name in ("Auxiliary", "Convolution"):
        network = build_model(f"{hostile}:{name}", 10)
        assert network.return_nodes.classifier == "head"
        assert FeatureExtractor(network)(torch.zeros(2, 3, 32, 32)).embedding.shape == (2, 8)


def test_a_network_that_returns_more_in_training_is_named(hostile):
    extractor = FeatureExtractor(build_model(f"{hostile}:InTraining", 10))
    with pytest.raises(ValueError, match="returns a tuple in training mode; return the logits alone"):
        extractor.train()(torch.zeros(2, 3, 32, 32))

"""A network with a head is a network like any other: extractor, copies, compilation, folding and Grad-CAM take it."""

import copy

import pytest
import torch
from torch import nn

from kdhelpers.analysis.gradcam import gradcam_maps
from kdhelpers.models import FeatureExtractor, HeadedNetwork, build_model, count_parameters
from kdhelpers.training.teacher import Teacher


class Head(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.widen, self.pool = nn.Conv2d(channels, 24, 1), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(24, 10)

    def forward(self, final_map):
        return self.classifier(self.pool(self.widen(final_map).relu()).flatten(1))


@pytest.fixture
def headed():
    torch.manual_seed(0)
    return HeadedNetwork(build_model("wrn_16_1", 10), Head(64)).eval()


def test_its_outputs_are_the_networks_maps_and_the_heads_rest(headed, zoo_images):
    network, head = headed.features.model, headed.head
    own, outputs = FeatureExtractor(network)(zoo_images), FeatureExtractor(headed, pre_activations=True)(zoo_images)
    assert all(torch.equal(value, own.feature_maps[name]) for name, value in outputs.feature_maps.items())
    assert list(outputs.pre_activations) == ["block1", "block2", "block3"]
    assert torch.equal(outputs.final_map, head.widen(own.final_map).relu())
    assert torch.equal(outputs.embedding, outputs.final_map.mean((2, 3)))
    assert torch.equal(outputs.logits, head(own.final_map))
    assert torch.equal(headed(zoo_images), outputs.logits)
    assert count_parameters(headed) == count_parameters(network) + count_parameters(head)


def test_a_forward_stops_at_a_map(headed, zoo_images):
    headed.train()
    statistics = headed.features.model.bn1.running_mean.clone()
    outputs = FeatureExtractor(headed)(zoo_images, stop_at="block2")
    assert (outputs.logits, list(outputs.feature_maps)) == (None, ["stem", "block1", "block2"])
    assert torch.equal(headed.features.model.bn1.running_mean, statistics)


def test_a_copy_predicts_by_its_own_parts(headed, zoo_images):
    expected, twin = headed(zoo_images), copy.deepcopy(headed)
    with torch.no_grad():
        headed.features.model.conv1.weight.zero_()
        assert torch.equal(twin(zoo_images), expected)
        assert not torch.equal(headed(zoo_images), expected)


def test_it_compiles_without_a_graph_break(headed, zoo_images):
    compiled = torch.compile(FeatureExtractor(headed), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(zoo_images).logits, headed(zoo_images))


def test_it_teaches(headed, zoo_images):
    outputs = Teacher(headed)(zoo_images)
    torch.testing.assert_close(outputs.logits, headed(zoo_images).detach(), rtol=1e-4, atol=1e-5)
    assert outputs.final_map.shape == (4, 24, 8, 8)


def test_grad_cam_explains_the_heads_logits(data):
    torch.manual_seed(0)
    network, head = build_model("resnet8", 10).eval(), Head(64)
    index = torch.arange(4)
    first, second = (gradcam_maps(HeadedNetwork(network, part), data, index) for part in (head, Head(64)))
    assert first.shape == (4, data.image_size, data.image_size)
    assert not torch.equal(first, second)

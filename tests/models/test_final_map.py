"""The final map and the maps before their activation, in every network and when its BatchNorm is folded."""

import pytest
import torch
from torch.nn import functional as F

from kdhelpers.models import MODELS, FeatureExtractor, build_model, fold_batchnorm

LAST_MAP_IS_ANOTHER = {"wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2", "mobilenetv2", "shufflenetv2", "shake_shake"}
WITHOUT_RELU = {"mobilenetv2", "shufflenetv2", "shake_shake"}  # at the end of a stage
FOLDED = ["resnet8", "resnet8x4", "resnet18", "resnet50", "resnet50_crd", "wrn_16_2", "vgg8", "vgg13", "shufflenetv1"]


def outputs_of(name, images):
    torch.manual_seed(0)
    options = {"depth": 8} if name == "shake_shake" else {}
    model = build_model(name, 10, **options).eval()
    with torch.no_grad():
        return model, FeatureExtractor(model, pre_activations=True)(images[:2])


@pytest.mark.parametrize("name", MODELS)
def test_the_mean_of_the_final_map_is_the_embedding(name, zoo_images):
    model, outputs = outputs_of(name, zoo_images)
    torch.testing.assert_close(outputs.final_map.mean((2, 3)), outputs.embedding, rtol=0, atol=1e-5)
    logits = model.get_submodule(model.return_nodes.classifier)(outputs.final_map.mean((2, 3)))
    torch.testing.assert_close(logits, outputs.logits, rtol=0, atol=1e-4)
    last = list(outputs.feature_maps.values())[-1]
    assert (outputs.final_map is last) == (name not in LAST_MAP_IS_ANOTHER), "no copy of the last map"
    assert outputs.final_map.min() == 0, "after a ReLU"


@pytest.mark.parametrize("name", MODELS)
def test_a_pre_activation_is_the_map_before_its_relu(name, zoo_images):
    model, outputs = outputs_of(name, zoo_images)
    maps = dict(list(outputs.feature_maps.items())[1:])
    assert outputs.pre_activations.keys() == maps.keys()
    assert model.return_nodes.pre_activations.keys() == (set() if name in WITHOUT_RELU else maps.keys())
    for key, value in maps.items():
        if name.startswith("wrn"):
            norm = model.bn1 if key == "block3" else model.get_submodule(f"block{int(key[-1]) + 1}.layer.0.bn1")
            torch.testing.assert_close(outputs.pre_activations[key], norm(value).detach())
        else:
            before = outputs.pre_activations[key]
            assert torch.equal(before if name in WITHOUT_RELU else F.relu(before), value)
        assert (outputs.pre_activations[key].min() < 0) == (name != "shufflenetv2"), "a mixture of two ReLUs"


@pytest.mark.parametrize("name", FOLDED)
def test_a_folded_network_has_the_same_ones(name, zoo_images):
    torch.manual_seed(0)
    model = build_model(name, 10)
    with torch.no_grad():
        for _ in range(3):
            model(zoo_images)  # statistics that a wrong fold shows
        want, got = (
            FeatureExtractor(network, pre_activations=True)(zoo_images[:2])
            for network in (model.eval(), fold_batchnorm(model))
        )
    torch.testing.assert_close(got.final_map, want.final_map, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.pre_activations, want.pre_activations, rtol=1e-4, atol=1e-4)

"""The registry's networks are the published ones, and unknown requests are refused in one line."""

import hashlib
import json

import numpy as np
import pytest
import torch
from device_checks import DeviceCheck
from fake_device import FakeTensor
from torch import nn

from kdhelpers.models import (
    MODELS,
    Architecture,
    FeatureExtractor,
    build_model,
    check_model,
    count_macs,
    count_parameters,
    default_options,
    identify_architecture,
    require_small,
)
from kdhelpers.models.networks.shufflenet_v1 import shuffled

WITH_GROUPS = ["mobilenetv2", "shufflenetv1", "shufflenetv2"]


def test_state_dict_is_the_benchmarks(zoo_name, recorded):
    model = build_model(zoo_name, num_classes=100)
    layout = [[key, list(value.shape)] for key, value in model.state_dict().items()]
    digest = hashlib.sha256(json.dumps(layout, separators=(",", ":")).encode()).hexdigest()
    assert digest == recorded["state_dict_sha256"]
    assert count_parameters(model) == recorded["parameters"]


def test_maps_have_the_benchmarks_shapes_and_are_taken_on_its_side_of_the_relu(zoo_name, recorded, zoo_images):
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = FeatureExtractor(build_model(zoo_name, num_classes=100).eval())(zoo_images)
    assert [list(value.shape) for value in outputs.feature_maps.values()] == recorded["maps"]
    assert list(outputs.embedding.shape) == recorded["embedding"]
    for value, after_relu in zip(outputs.feature_maps.values(), recorded["maps_after_relu"], strict=True):
        assert (value.min() == 0) if after_relu else (value.min() < 0)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "wrn_16_1", "vgg8", "shake_shake", *WITH_GROUPS])
def test_networks_take_operations_that_apples_gpu_has(name):
    model = build_model(name, num_classes=10).to("meta")
    with DeviceCheck("meta") as operations:
        model(torch.empty(2, 3, 32, 32, device="meta")).sum().backward()
    assert operations.count["native_batch_norm_backward"] > 0
    assert operations.count["channel_shuffle"] == 0


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_channels_are_shuffled_alike_on_every_device(groups):
    images = torch.arange(2 * 12 * 3 * 5.0).view(2, 12, 3, 5)
    assert torch.equal(shuffled(FakeTensor(images), groups).value, shuffled(images, groups))


RECORDED = ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2", "resnet50_crd"]


@pytest.mark.parametrize("zoo_name", RECORDED)
def test_logits_are_the_benchmarks(zoo_name, recorded, zoo_images, fill_by_name):
    model = fill_by_name(build_model(zoo_name, num_classes=100)).double().eval()
    with torch.no_grad():
        logits = model(zoo_images[:2].double()).numpy()
    np.testing.assert_allclose(logits[:, :5], recorded["logits_first_five"][:2], rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(logits, axis=1), recorded["logits_norms"][:2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["wrn_16_2", "mobilenetv2", "shufflenetv1", "shufflenetv2", "resnet50_crd"])
def test_a_forward_may_stop_at_every_map(name, zoo_images):
    extractor = FeatureExtractor(build_model(name, num_classes=10).eval())
    with torch.no_grad():
        whole = extractor(zoo_images[:1]).feature_maps
        for place, last in enumerate(whole):
            stopped = extractor(zoo_images[:1], stop_at=last)
            assert stopped.logits is None
            assert list(stopped.feature_maps) == list(whole)[: place + 1]
            assert all(torch.equal(value, whole[key]) for key, value in stopped.feature_maps.items())


@pytest.mark.parametrize("name", ["wrn_16_1", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_every_parameter_learns_and_larger_images_pass(name):
    model = build_model(name, num_classes=10)
    model(torch.rand(2, 3, 40, 40)).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_benchmarks_resnet50_is_torchvisions_with_a_small_stem_under_other_names(zoo_images):
    network, reference = build_model("resnet50_crd", 10).eval(), build_model("resnet50", 10).eval()
    names = {key: key.replace("shortcut", "downsample").replace("linear", "fc") for key in network.state_dict()}
    reference.load_state_dict({names[key]: value for key, value in network.state_dict().items()})
    with torch.no_grad():
        torch.testing.assert_close(network(zoo_images[:1]), reference(zoo_images[:1]))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_imagenet_stem_is_torchvisions_network(name, fill_by_name, zoo_images):
    from torchvision import models

    network = fill_by_name(build_model(name, num_classes=100, stem="imagenet")).eval()
    reference = getattr(models, name)(num_classes=100).eval()
    reference.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network(zoo_images), reference(zoo_images), rtol=0, atol=0)


def test_cifar_stem_keeps_the_maps_large(zoo_images):
    with torch.no_grad():
        outputs = FeatureExtractor(build_model("resnet18", num_classes=10).eval())(zoo_images)
    sizes = {name: tuple(value.shape[1:]) for name, value in outputs.feature_maps.items()}
    assert sizes == {
        "stem": (64, 32, 32),
        "layer1": (64, 32, 32),
        "layer2": (128, 16, 16),
        "layer3": (256, 8, 8),
        "layer4": (512, 4, 4),
    }


def test_vgg_pools_once_more_for_larger_images():
    with torch.no_grad():
        maps = FeatureExtractor(build_model("vgg8", num_classes=10).eval())(torch.zeros(1, 3, 64, 64)).feature_maps
    assert [value.shape[-1] for value in maps.values()] == [64, 32, 16, 8, 4]


def test_initialisation_is_the_benchmarks():
    torch.manual_seed(0)
    vgg = build_model("vgg8", num_classes=100)
    convolution = vgg.block3[0]
    assert convolution.weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
    assert not convolution.bias.any()
    assert not vgg.classifier.bias.any()
    assert vgg.classifier.weight.std().item() == pytest.approx(0.01, rel=0.02)
    wide = build_model("resnet32x4", num_classes=100).layer3[1].conv1
    assert wide.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)


def test_initialisation_is_the_benchmarks_in_every_family():
    torch.manual_seed(0)
    wide = build_model("wrn_40_2", num_classes=100)
    assert wide.block3.layer[3].conv2.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.01)
    assert not wide.fc.bias.any()
    mobile = build_model("mobilenetv2", num_classes=100)
    per_channel = mobile.blocks[5][1].conv[3]  # by its 480 outputs, though each channel has one input only
    assert per_channel.weight.std().item() == pytest.approx((2 / (9 * 480)) ** 0.5, rel=0.05)
    assert not mobile.classifier[0].bias.any()
    assert mobile.classifier[0].weight.std().item() == pytest.approx(0.01, rel=0.02)
    for name in ("shufflenetv1", "shufflenetv2"):  # torch's own start: uniform in +-1 / sqrt(inputs)
        convolution = build_model(name, num_classes=100).layer3[1].conv1
        inputs = convolution.weight[0].numel()
        assert convolution.weight.abs().max().item() == pytest.approx(inputs**-0.5, rel=0.01)


def test_build_draws_from_the_global_generator_only():
    torch.manual_seed(3)
    first = build_model("resnet8", num_classes=10).state_dict()
    torch.manual_seed(3)
    second = build_model("resnet8", num_classes=10).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_counts_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, 2, 1, groups=4))
    model.extend([nn.Flatten(), nn.Linear(8 * 4 * 4, 5)])
    model.train()
    assert count_parameters(model) == 8 * 3 * 9 + (8 * 2 * 9 + 8) + (128 * 5 + 5)
    assert count_macs(model, image_size=8) == 8 * 64 * 3 * 9 + 8 * 16 * 2 * 9 + 128 * 5
    assert model.training
    assert not model[0]._forward_hooks


def test_counting_leaves_batchnorm_statistics_alone():
    model = build_model("resnet8", num_classes=10)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert count_macs(model, 32) > 0
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet9", {}, "model = resnet9: unknown; did you mean resnet8? `python -m kdhelpers list`"),
        ("resnet8", {"stem": "cifar"}, "option of model resnet8 = stem: unknown; known: none"),
        ("resnet18", {"stam": "cifar"}, "option of model resnet18 = stam: unknown; did you mean stem? known: stem"),
        ("resnet18", {"stem": "mnist"}, "stem='mnist' of resnet18 must be one of 'cifar', 'imagenet'"),
        ("resnet20", {"pretrained": True}, "has no ImageNet weights; use one of resnet18, resnet34, resnet50"),
        ("resnet18", {"pretrained": True}, "need stem='imagenet', their shapes do not fit stem='cifar'"),
        ("resnet8", {"num_classes": 0}, "num_classes=0 must be a whole number of at least 1"),
    ],
)
def test_bad_requests_are_refused_in_one_line(name, options, message):
    with pytest.raises(ValueError) as refused:
        build_model(name, **{"num_classes": 10} | options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_check_model_returns_all_options_with_defaults():
    assert check_model("resnet18") == default_options("resnet18") == {"stem": "cifar", "base_channels": 64}
    assert check_model("resnet18", options={"base_channels": "32"}) == {"stem": "cifar", "base_channels": 32}
    assert check_model("resnet8", options={}) == default_options("resnet8") == {}


def test_every_network_has_its_return_nodes():
    for name, architecture in MODELS.items():
        with torch.device("meta"):
            model = build_model(name, num_classes=2)
        assert model.return_nodes.feature_maps == architecture.feature_maps
        assert model.get_submodule(model.return_nodes.classifier).out_features == 2


@pytest.mark.parametrize(
    ("name", "base_channels", "parameters"),
    [
        ("resnet18", 32, 2_797_610),
        ("resnet34", 30, 4_682_200),
        ("resnet34", 32, 5_326_506),
        ("resnet50", 24, 3_325_282),
    ],
)
def test_narrow_resnets_have_the_published_sizes(name, base_channels, parameters):
    assert require_small(name, 10, {"base_channels": base_channels}, limit=parameters) == parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_a_narrow_resnet_is_the_stock_one_with_every_width_halved(name, stem, zoo_images):
    stock = build_model(name, 10, stem=stem)
    narrow = build_model(name, 10, stem=stem, base_channels=32)
    for (path, wide), (same_path, thin) in zip(stock.state_dict().items(), narrow.state_dict().items(), strict=True):
        expected = [n // 2 if n >= 64 else n for n in wide.shape]  # 3 colours, 10 classes and kernels stay
        assert (path, expected) == (same_path, list(thin.shape))
    for path, layer in stock.named_modules():
        if isinstance(layer, nn.Conv2d):
            thin = narrow.get_submodule(path)
            assert (layer.stride, layer.padding, layer.bias) == (thin.stride, thin.padding, thin.bias)
    weight = narrow.layer3[0].conv1.weight
    fan_out = len(weight) * weight[0, 0].numel()
    assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    with torch.no_grad():
        assert narrow.eval()(zoo_images[:1]).shape == (1, 10)


def test_a_narrow_resnet_is_identified_by_its_width_and_does_not_fit_imagenet_weights():
    assert identify_architecture(build_model("resnet34", 7, base_channels=30).state_dict()) == (
        "resnet34",
        7,
        {"stem": "cifar", "base_channels": 30},
    )
    with pytest.raises(ValueError, match="base_channels=64, their shapes do not fit base_channels=32"):
        check_model("resnet18", pretrained=True, options={"stem": "imagenet", "base_channels": 32})


def test_a_network_above_the_limit_is_refused_with_its_size_and_the_width_that_fits():
    with pytest.raises(ValueError) as refused:
        require_small("resnet34", 10, {"base_channels": 32}, limit=5_000_000)
    assert str(refused.value) == (
        "model = resnet34: has 5,326,506 parameters, more than max_parameters = 5,000,000; "
        "base_channels=31 is the largest to fit"
    )
    with pytest.raises(ValueError, match="base_channels=18 is the largest"):
        require_small("shake_shake", 10, {}, limit=1_000_000)
    for name in ("vgg8", "resnet18"):
        with pytest.raises(ValueError, match="; take a smaller one"):
            require_small(name, 10, {}, limit=10)


def test_a_relu_of_an_unknown_map_is_refused_with_the_names_of_the_maps():
    with pytest.raises(ValueError, match=r"pre_activations = boddy: unknown; did you mean body\? known: stem, body"):
        Architecture(nn.Identity, {"stem": "0", "body": "1"}, "2", pre_activations={"boddy": "1.2"})

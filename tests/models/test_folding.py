"""Folding changes the cost of a network, not its logits, and nothing that is not safely foldable."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from kdhelpers.models import FeatureExtractor, build_model, fold_batchnorm


def batchnorms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def with_statistics(model):
    """Statistics and scales as after some training, so that a wrong fold shows."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.running_mean.shape
            module.running_mean = 0.3 * torch.randn(size, generator=generator)
            module.running_var = 0.5 + torch.rand(size, generator=generator)
            if module.affine:
                module.weight.data = 0.5 + torch.rand(size, generator=generator)
                module.bias.data = 0.3 * torch.randn(size, generator=generator)
    return model.eval()


def assert_same_logits(folded, model, images):
    with torch.no_grad():
        want = model(images)
        assert (folded(images) - want).abs().max() <= 1e-4 * want.abs().max()


WHOLE = ["resnet20", "resnet8x4", "vgg8", "vgg11", "resnet18", "resnet50", "resnet50_crd"]
WHOLE += ["mobilenetv2", "shufflenetv1", "shufflenetv2"]
PRE_ACTIVATION = [("wrn_16_1", 7), ("wrn_16_2", 7), ("wrn_40_2", 19)]  # what stands before a block's first convolution


@pytest.mark.parametrize(("name", "left"), [(name, 0) for name in WHOLE] + PRE_ACTIVATION)
def test_registry_networks_fold_and_output_the_same(name, left, zoo_images):
    torch.manual_seed(0)
    zoo_images = zoo_images[:2]
    model = with_statistics(build_model(name, num_classes=20))
    folded = fold_batchnorm(model)
    assert batchnorms(folded) == left
    assert_same_logits(folded, model, zoo_images)
    with torch.no_grad():
        want, got = FeatureExtractor(model)(zoo_images), FeatureExtractor(folded)(zoo_images)
    assert list(got.feature_maps) == list(want.feature_maps)
    for name, value in want.feature_maps.items():
        torch.testing.assert_close(got.feature_maps[name], value, rtol=1e-4, atol=1e-4 * value.abs().max().item())


def test_the_original_is_untouched(zoo_images):
    model = with_statistics(build_model("resnet8", num_classes=4)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batchnorm(model)
    assert model.training
    assert not folded.training
    assert batchnorms(model) == 9
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    folded.conv1.weight.data.zero_()
    assert model.conv1.weight.any()


class SharedConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.own, self.forked = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.bn_a, self.bn_b, self.bn_own, self.bn_fork = (nn.BatchNorm2d(3) for _ in range(4))

    def forward(self, x):
        x = self.bn_b(self.shared(self.bn_a(self.shared(x))))
        x = self.bn_own(self.own(x))
        fork = self.forked(x)
        return (self.bn_fork(fork) + fork).mean((2, 3))


class TiedWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.read = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.two.weight = self.one.weight
        self.bn_one, self.bn_two, self.bn_read = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x):
        x = self.bn_two(self.two(self.bn_one(self.one(x))))
        return F.conv2d(self.bn_read(self.read(x)), self.read.weight).mean((2, 3))


class Aliased(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.layers = nn.Sequential(self.convolution, self.bn)

    def forward(self, x):
        return self.layers(x).mean((2, 3))


class Standardised(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, (self.weight - self.weight.mean()) / self.weight.std(), self.bias)


class Parts(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x, scale=None):
        x = self.layers(x).mean((2, 3))
        return x if scale is None else x * scale


def parametrised():
    return parametrizations.weight_norm(nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize(
    ("model", "left"),
    [
        (SharedConvolution(), 3),
        (TiedWeight(), 3),
        (Aliased(), 1),
        (Parts(Standardised(3, 3, 1), nn.BatchNorm2d(3)), 1),
        (Parts(parametrised(), nn.BatchNorm2d(3)), 1),
        (Parts(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)), 2),
        (Parts(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False)), 0),
        (Parts(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)), 0),
    ],
    ids=["shared", "tied", "aliased", "subclass", "parametrised", "not after one", "not affine", "grouped"],
)
def test_folds_only_what_is_safe(model, left, zoo_images):
    with_statistics(model)
    folded = fold_batchnorm(model)
    assert batchnorms(folded) == left
    assert_same_logits(folded, model, zoo_images)


def test_batch_statistics_are_not_folded(zoo_images):
    model = Parts(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    folded = fold_batchnorm(model)
    assert batchnorms(folded) == 1
    assert_same_logits(folded, model, zoo_images)


def test_a_convolution_among_the_return_nodes_keeps_its_output(zoo_images):
    model = with_statistics(build_model("resnet8", num_classes=4))
    model.return_nodes = model.return_nodes._replace(feature_maps={"raw": "conv1"})
    folded = fold_batchnorm(model)
    assert batchnorms(folded) == 1
    with torch.no_grad():
        want, got = FeatureExtractor(model)(zoo_images), FeatureExtractor(folded)(zoo_images)
    torch.testing.assert_close(got.feature_maps["raw"], want.feature_maps["raw"])


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, x):
        return self.layers(x if x.sum() > 0 else -x).mean((2, 3))


def test_untraceable_network_comes_back_unfolded_in_eval(zoo_images):
    model = with_statistics(Branching()).train()
    folded = fold_batchnorm(model)
    assert batchnorms(folded) == 1
    assert not folded.training
    assert_same_logits(folded, model.eval(), zoo_images)

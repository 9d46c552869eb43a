"""ShuffleNetV2 for 32 px (Ma et al. 2018), size 1, in the CRD benchmark's layer names, so its weights load.

Unlike torchvision's shufflenet_v2_x1_0: the stem is a 1x1 convolution of stride 1 without max-pooling.
"""

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from kdhelpers.models.architecture import Architecture
from kdhelpers.models.networks.shufflenet_v1 import shuffled

STEM = 24
STAGES = ((116, 4), (232, 8), (464, 4))  # channels, blocks
FEATURES = 1024


class SplitUnit(nn.Module):
    """Half of the channels pass unchanged, the others pass 1x1, 3x3 per channel, 1x1; then both halves are shuffled."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = _pointwise(half, half)
        self.conv2, self.bn2 = _per_channel(half, stride=1)
        self.conv3, self.bn3 = _pointwise(half, half)

    def forward(self, x: Tensor) -> Tensor:
        unchanged, out = x.chunk(2, 1)
        out = F.relu(self.bn1(self.conv1(out)), inplace=True)
        out = self.bn2(self.conv2(out))
        out = F.relu(self.bn3(self.conv3(out)), inplace=True)
        return _shuffled(unchanged, out)


class DownUnit(nn.Module):
    """Both branches take all channels, halve the image and give half of the output's channels."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = _per_channel(channels_in, stride=2)
        self.conv2, self.bn2 = _pointwise(channels_in, half)
        self.conv3, self.bn3 = _pointwise(channels_in, half)
        self.conv4, self.bn4 = _per_channel(half, stride=2)
        self.conv5, self.bn5 = _pointwise(half, half)

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn1(self.conv1(x))
        left = F.relu(self.bn2(self.conv2(left)), inplace=True)
        right = F.relu(self.bn3(self.conv3(x)), inplace=True)
        right = self.bn4(self.conv4(right))
        right = F.relu(self.bn5(self.conv5(right)), inplace=True)
        return _shuffled(left, right)


class ShuffleNetV2(nn.Module):
    """A 1x1 stem, three stages that end at 16, 8, 4 px, a 1x1 convolution, global pooling, linear."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1, self.bn1 = _pointwise(3, STEM)
        self.relu = nn.ReLU(inplace=True)
        inputs = (STEM, *(channels for channels, _ in STAGES))
        self.layer1, self.layer2, self.layer3 = (_stage(inputs[i], *sizes) for i, sizes in enumerate(STAGES))
        self.conv2, self.bn2 = _pointwise(inputs[-1], FEATURES)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(FEATURES, num_classes)  # default initialisation throughout, as in the benchmark

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))  # [B, 24, 32, 32]
        x = self.layer3(self.layer2(self.layer1(x)))  # [B, 464, 4, 4]
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.linear(self.avgpool(x).flatten(1))


def _stage(channels_in: int, channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(channels_in, channels), *(SplitUnit(channels) for _ in range(count - 1)))


def _pointwise(channels_in: int, channels: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels)


def _per_channel(channels: int, stride: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    return convolution, nn.BatchNorm2d(channels)


def _shuffled(left: Tensor, right: Tensor) -> Tensor:
    """[B, C, H, W] twice -> [B, 2 C, H, W], channels alternately from left and right."""
    return shuffled(torch.cat([left, right], 1), 2)


fx.wrap("shuffled")


_MAPS = {"stem": "relu", "layer1": "layer1", "layer2": "layer2", "layer3": "layer3"}
ARCHITECTURES = {"shufflenetv2": Architecture(ShuffleNetV2, _MAPS, "linear", pooling="avgpool", pre_activations={})}

"""ShuffleNet for 32 px (Zhang et al. 2018), 3 groups, in the CRD benchmark's layer names, so its weights load.

Unlike the paper: the stem is a 1x1 convolution of stride 1 without max-pooling, and a ReLU follows the convolution per
channel. torchvision has no ShuffleNetV1.
"""

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from kdhelpers.models.architecture import Architecture, stage

STEM = 24
GROUPS = 3
STAGES = ((240, 4), (480, 8), (960, 4))  # channels, blocks


class ShuffleUnit(nn.Module):
    """Grouped 1x1, channel shuffle, 3x3 per channel, grouped 1x1; then relu of the sum with x. With stride 2: relu
    of the concatenation with the pooled x, which gives channels_in of the output's channels."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        new = channels - channels_in if stride == 2 else channels
        middle = new // 4
        self.groups = 1 if channels_in == STEM else GROUPS  # the stem has too few channels to group
        self.conv1 = nn.Conv2d(channels_in, middle, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, new, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(new)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = shuffled(out, self.groups)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out = out + x if self.pool is None else torch.cat([out, self.pool(x)], 1)
        return self.relu(out)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """The channels of [B, C, H, W], alternately from each of the groups.

    torch's operation keeps channels_last. Apple's GPU lacks it, and its layout is contiguous.
    """
    if x.device.type in ("cpu", "cuda"):
        return F.channel_shuffle(x, groups)
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


fx.wrap("shuffled")  # `fold_batchnorm` traces the network and must not follow the branch


class ShuffleNetV1(nn.Module):
    """A 1x1 stem, three stages that end at 16, 8, 4 px, global pooling, linear."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU(inplace=True)
        inputs = (STEM, *(channels for channels, _ in STAGES))
        self.layer1, self.layer2, self.layer3 = (
            stage(ShuffleUnit, inputs[i], *sizes, 2) for i, sizes in enumerate(STAGES)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs[-1], num_classes)  # default initialisation throughout, as in the benchmark

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))  # [B, 24, 32, 32]
        x = self.layer3(self.layer2(self.layer1(x)))  # [B, 960, 4, 4]
        return self.linear(self.avgpool(x).flatten(1))


_MAPS = {"stem": "relu", "layer1": "layer1", "layer2": "layer2", "layer3": "layer3"}
_RELUS = {f"layer{i}": f"layer{i}.{count - 1}.relu" for i, (_, count) in enumerate(STAGES, 1)}
ARCHITECTURES = {"shufflenetv1": Architecture(ShuffleNetV1, _MAPS, "linear", pooling="avgpool", pre_activations=_RELUS)}

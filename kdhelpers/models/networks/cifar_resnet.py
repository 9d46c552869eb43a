"""ResNets for 32 px (He et al. 2016, section 4.2) in the CRD benchmark's layer names, so its weights load."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from kdhelpers.models.architecture import Architecture, initialise, stage


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); the shortcut has a convolution if shapes differ."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += shortcut
        return self.relu(out)


class CifarResNet(nn.Module):
    """depth = 6 n + 2 layers: a 3x3 stem, three stages of n blocks at 32, 16, 8 px, global pooling, linear.

    widths: channels of the stem and of the three stages.
    """

    def __init__(self, num_classes: int, depth: int, widths: tuple[int, int, int, int]):
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(BasicBlock, widths[0], widths[1], blocks, stride=1)
        self.layer2 = stage(BasicBlock, widths[1], widths[2], blocks, stride=2)
        self.layer3 = stage(BasicBlock, widths[2], widths[3], blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))  # [B, widths[0], 32, 32]
        x = self.layer3(self.layer2(self.layer1(x)))  # [B, widths[3], 8, 8]
        return self.fc(self.avgpool(x).flatten(1))


def _architecture(depth: int, widths: tuple[int, int, int, int]) -> Architecture:
    maps = {"stem": "relu", "layer1": "layer1", "layer2": "layer2", "layer3": "layer3"}
    last = {f"layer{i}": f"layer{i}.{(depth - 2) // 6 - 1}.relu" for i in (1, 2, 3)}
    build = partial(CifarResNet, depth=depth, widths=widths)
    return Architecture(build, maps, "fc", pooling="avgpool", pre_activations=last)


DEPTHS = (8, 14, 20, 32, 44, 56, 110)
ARCHITECTURES = {f"resnet{depth}": _architecture(depth, (16, 16, 32, 64)) for depth in DEPTHS}
ARCHITECTURES |= {f"resnet{depth}x4": _architecture(depth, (32, 64, 128, 256)) for depth in (8, 32)}

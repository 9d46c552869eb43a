"""Wide ResNets for 32 px (Zagoruyko & Komodakis 2016; pre-activation as in He et al. 2016b), in the CRD benchmark's
layer names, so its weights load. torchvision's wide_resnet50_2 is another network: for 224 px, post-activation."""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from kdhelpers.models.architecture import Architecture, initialise, stage


class PreActivationBlock(nn.Module):
    """a = relu(bn(x)); conv(relu(bn(conv(a)))) + x; if the widths differ, + a convolution of a, not of x."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.convShortcut = None
        if channels_in != channels:
            self.convShortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        out = F.relu(self.bn2(self.conv1(active)), inplace=True)
        out = self.conv2(out)
        out += shortcut
        return out


class WideResNet(nn.Module):
    """depth = 6 n + 4 layers: a 3x3 stem of 16 channels, three blocks of n at 32, 16, 8 px, BatchNorm, ReLU, global
    pooling, linear. Its feature maps are the blocks' outputs, sums without a ReLU: the next block begins with one."""

    def __init__(self, num_classes: int, depth: int, widening: int):
        super().__init__()
        count = (depth - 4) // 6
        widths = (16 * widening, 32 * widening, 64 * widening)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = _stage(16, widths[0], count, stride=1)
        self.block2 = _stage(widths[0], widths[1], count, stride=2)
        self.block3 = _stage(widths[1], widths[2], count, stride=2)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        initialise(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images)  # [B, 16, 32, 32]
        x = self.block3(self.block2(self.block1(x)))  # [B, 64 * widening, 8, 8]
        x = self.relu(self.bn1(x))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(channels_in: int, channels: int, count: int, stride: int) -> nn.Sequential:
    blocks = stage(PreActivationBlock, channels_in, channels, count, stride)
    return nn.Sequential(OrderedDict(layer=blocks))  # the benchmark's names: block1.layer.0.conv1


_MAPS = {"stem": "conv1", "block1": "block1", "block2": "block2", "block3": "block3"}
_RELUS = {"block1": "block2.layer.0.relu", "block2": "block3.layer.0.relu", "block3": "relu"}  # of what follows
ARCHITECTURES = {
    f"wrn_{depth}_{widening}": Architecture(
        partial(WideResNet, depth=depth, widening=widening), _MAPS, "fc", pooling="avgpool", pre_activations=_RELUS
    )
    for depth in (16, 40)
    for widening in (1, 2)
}

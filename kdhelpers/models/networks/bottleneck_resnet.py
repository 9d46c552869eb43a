"""The CRD benchmark's own ResNet-50 for 32 px (He et al. 2016, section 4.1), in its layer names, so its weights load.

It equals torchvision's resnet50 with the CIFAR stem (a 3x3 convolution, no max-pooling); `shortcut` is called
`downsample` there, and `linear` is called `fc`.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from kdhelpers.models.architecture import Architecture, initialise, stage

STAGES = ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2))  # channels, blocks, stride of the first
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1 to a quarter of the channels, 3x3 (with the stride), 1x1, + shortcut, relu."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        inner = channels // EXPANSION
        self.conv1 = nn.Conv2d(channels_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.shortcut = None
        if stride != 1 or channels_in != channels:
            shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(channels))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += shortcut
        return self.relu(out)


class BottleneckResNet(nn.Module):
    """A 3x3 stem, four stages of bottlenecks at 32, 16, 8, 4 px, global pooling, linear."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        inputs = (64, *(channels for channels, _, _ in STAGES))
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            stage(Bottleneck, inputs[i], *sizes) for i, sizes in enumerate(STAGES)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs[-1], num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))  # [B, 64, 32, 32]
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [B, 2048, 4, 4]
        return self.linear(self.avgpool(x).flatten(1))


_MAPS = {"stem": "relu", **{f"layer{i}": f"layer{i}" for i in range(1, 5)}}
_RELUS = {f"layer{i}": f"layer{i}.{count - 1}.relu" for i, (_, count, _) in enumerate(STAGES, 1)}
ARCHITECTURES = {
    "resnet50_crd": Architecture(BottleneckResNet, _MAPS, "linear", pooling="avgpool", pre_activations=_RELUS)
}

"""MobileNetV2 for 32 px (Sandler et al. 2018) at half width, in the CRD benchmark's layer names, so its weights load.

Unlike torchvision's: half the channels, rounded down instead of to multiples of 8, but 1,280 at the end; ReLU instead
of ReLU6; the second stage does not halve the image; the first block has an expansion layer (by 1); no dropout.
"""

from torch import Tensor, nn

from kdhelpers.models.architecture import Architecture, initialise, stage

WIDTH = 0.5
STAGES = (  # the paper's table 2: expansion, channels at full width, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
FEATURES = 1280


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 per channel, 1x1 projection without a ReLU; + x if the shapes agree."""

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int):
        super().__init__()
        hidden = channels_in * expansion
        self.conv = nn.Sequential(
            *_convolution(channels_in, hidden, 1),
            *_convolution(hidden, hidden, 3, stride, groups=hidden),
            *_convolution(hidden, channels, 1)[:-1],
        )
        self.adds = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return out + x if self.adds else out


class MobileNetV2(nn.Module):
    """A 3x3 stem of stride 2, seven stages that end at 2 px, a 1x1 convolution, global pooling, linear.

    Its feature maps are the stages' outputs, linear bottlenecks without a ReLU.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        channels = int(32 * WIDTH)
        self.conv1 = nn.Sequential(*_convolution(3, channels, 3, stride=2))
        self.blocks = nn.Sequential()
        for expansion, full, count, stride in STAGES:
            self.blocks.append(stage(InvertedResidual, channels, int(full * WIDTH), count, stride, expansion))
            channels = int(full * WIDTH)
        self.conv2 = nn.Sequential(*_convolution(channels, FEATURES, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(FEATURES, num_classes))
        initialise(self)
        nn.init.normal_(self.classifier[0].weight, 0, 0.01)
        nn.init.zeros_(self.classifier[0].bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.conv1(images))  # [B, 160, 2, 2]
        return self.classifier(self.avgpool(self.conv2(x)).flatten(1))


def _convolution(channels_in: int, channels: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


# the benchmark's: the last stage at each resolution
_MAPS = {"stem": "conv1", **{f"block{i}": f"blocks.{i}" for i in (1, 2, 4, 6)}}
ARCHITECTURES = {"mobilenetv2": Architecture(MobileNetV2, _MAPS, "classifier.0", pooling="avgpool", pre_activations={})}

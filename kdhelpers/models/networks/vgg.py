"""VGG for 32 px (Simonyan & Zisserman 2015) with BatchNorm, global pooling and one linear layer, in the CRD
benchmark's layer names, so its weights load."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from kdhelpers.models.architecture import Architecture, initialise

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {  # in each of the five blocks
    "vgg8": (1, 1, 1, 1, 1),
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


class HalveLarge(nn.Module):
    """Halves maps of at least 8 px: the benchmark pools before the last block for images of 64 px, not of 32 px."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if x.shape[-1] >= 8 else x


class VGG(nn.Module):
    """Five blocks of (3x3 convolution, BatchNorm, ReLU), 2x2 max-pooling between them, one linear layer."""

    def __init__(self, num_classes: int, convolutions: tuple[int, ...]):
        super().__init__()
        inputs = (3, *WIDTHS)
        self.block0, self.block1, self.block2, self.block3, self.block4 = (
            _block(inputs[i], WIDTHS[i], count) for i, count in enumerate(convolutions)
        )
        self.halve = nn.MaxPool2d(2)
        self.halve_large = HalveLarge()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)
        initialise(self)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.halve(self.block0(images))  # [B, 64, 16, 16]
        x = self.halve(self.block1(x))
        x = self.halve(self.block2(x))
        x = self.halve_large(self.block3(x))  # [B, 512, 4, 4]
        return self.classifier(self.pool(self.block4(x)).flatten(1))


def _block(channels_in: int, channels: int, convolutions: int) -> nn.Sequential:
    layers = []
    for _ in range(convolutions):
        convolution = nn.Conv2d(channels_in, channels, 3, padding=1)
        layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        channels_in = channels
    return nn.Sequential(*layers)


_MAPS = {f"block{i}": f"block{i}" for i in range(5)}
ARCHITECTURES = {
    name: Architecture(
        partial(VGG, convolutions=convolutions),
        _MAPS,
        "classifier",
        pooling="pool",
        pre_activations={f"block{i}": f"block{i}.{3 * count - 1}" for i, count in enumerate(convolutions) if i},
    )
    for name, convolutions in CONVOLUTIONS.items()
}

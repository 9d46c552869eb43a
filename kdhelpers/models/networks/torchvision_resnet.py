"""torchvision's ResNets (He et al. 2016, section 3), with a stem for 32 px or the stock one for 224 px."""

import pickle
from functools import partial
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor, nn

from kdhelpers.models.architecture import Architecture, Choice

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
STOCK = 64  # channels of the stem


def build(num_classes: int, name: str, stem: str, base_channels: int = STOCK, pretrained: bool = False) -> nn.Module:
    """torchvision's own class. `stem="cifar"`: a 3x3 convolution of stride 1 without max-pooling, because the stock
    stem and stages shrink 32 px to 1x1. base_channels: channels of the stem and of the first stage's blocks; all other
    widths scale with them. With `pretrained` the classifier is drawn unless num_classes is 1000.

    Raises FileNotFoundError if the ImageNet weights are not stored and cannot be downloaded, ValueError if the stored
    file is damaged.
    """
    from torchvision import models

    model = getattr(models, name)(num_classes=num_classes)
    if base_channels != STOCK:
        _narrow(model, base_channels)
    if stem == "cifar":
        model.conv1 = nn.Conv2d(3, base_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    if pretrained:
        weights = imagenet_weights(name)
        if num_classes != weights["fc.bias"].numel():
            weights |= {key: value for key, value in model.state_dict().items() if key.startswith("fc.")}
        model.load_state_dict(weights)
    return model


def _narrow(model: nn.Module, base_channels: int) -> None:
    """Replace each layer by one with base_channels / 64 of its channels; colours and classes keep their number."""
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d):
            inputs = 3 if layer.in_channels == 3 else layer.in_channels * base_channels // STOCK
            outputs = layer.out_channels * base_channels // STOCK
            shape = layer.kernel_size, layer.stride, layer.padding
            model.set_submodule(path, nn.Conv2d(inputs, outputs, *shape, bias=False))
        elif isinstance(layer, nn.BatchNorm2d):
            model.set_submodule(path, nn.BatchNorm2d(layer.num_features * base_channels // STOCK))
        elif isinstance(layer, nn.Linear):
            model.set_submodule(path, nn.Linear(layer.in_features * base_channels // STOCK, layer.out_features))
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # torchvision's initialisation


def imagenet_file(name: str) -> tuple[str, Path]:
    """The URL of torchvision's first ImageNet weights, which published experiments use, and the file that has them."""
    from torchvision.models import get_model_weights

    url = next(iter(get_model_weights(name))).url
    return url, Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(url).name)


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The tensors of `imagenet_file`, downloaded once."""
    url, path = imagenet_file(name)
    try:
        return torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"pretrained: {path} is damaged; delete it and fetch {url} again") from error
    except OSError as error:
        raise FileNotFoundError(f"pretrained: {name}: download failed ({error}); put {url} at {path}") from error


_MAPS = {"stem": "relu", "layer1": "layer1", "layer2": "layer2", "layer3": "layer3", "layer4": "layer4"}
ARCHITECTURES = {
    name: Architecture(
        partial(build, name=name),
        _MAPS,
        "fc",
        options={"stem": ("cifar", "imagenet"), "base_channels": Choice(STOCK, range(2, 257), usual=(32, 30, 24))},
        pretrained=True,
        pretrained_needs={"stem": "imagenet", "base_channels": STOCK},
        pooling="avgpool",
        pre_activations={f"layer{i}": f"layer{i}.{count - 1}.relu" for i, count in enumerate(blocks, 1)},
    )
    for name, blocks in BLOCKS.items()
}

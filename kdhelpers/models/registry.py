"""The networks by name. A new family is one file with its ARCHITECTURES, and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from . import (
    bottleneck_resnet,
    cifar_resnet,
    mobilenet_v2,
    shufflenet_v1,
    shufflenet_v2,
    torchvision_resnet,
    vgg,
    wide_resnet,
)
from .architecture import Architecture

MODELS: dict[str, Architecture] = {
    **cifar_resnet.ARCHITECTURES,
    **wide_resnet.ARCHITECTURES,
    **vgg.ARCHITECTURES,
    **mobilenet_v2.ARCHITECTURES,
    **shufflenet_v1.ARCHITECTURES,
    **shufflenet_v2.ARCHITECTURES,
    **bottleneck_resnet.ARCHITECTURES,
    **torchvision_resnet.ARCHITECTURES,
}


def check_model(name: str, pretrained: bool = False, options: Mapping[str, object] | None = None) -> dict:
    """All options of a network, defaults filled in. Raises ValueError, listing the known ones, for an unknown
    name, option or value, and for ImageNet weights that do not exist or do not fit."""
    if name not in MODELS:
        raise ValueError(f"model={name!r} is unknown; use one of {', '.join(MODELS)}")
    architecture = MODELS[name]
    chosen = {option: allowed[0] for option, allowed in architecture.options.items()} | dict(options or {})
    for option, value in chosen.items():
        if option not in architecture.options:
            known = ", ".join(architecture.options) or "it has none"
            raise ValueError(f"model option {option!r} is unknown to {name}; known options: {known}")
        if value not in architecture.options[option]:
            allowed = ", ".join(map(repr, architecture.options[option]))
            raise ValueError(f"model option {option}={value!r} of {name} must be one of {allowed}")
    if pretrained:
        _check_pretrained(name, chosen)
    return chosen


def _check_pretrained(name: str, options: Mapping[str, object]) -> None:
    if not MODELS[name].pretrained:
        having = ", ".join(known for known, architecture in MODELS.items() if architecture.pretrained)
        raise ValueError(f"pretrained=True: {name} has no ImageNet weights; use one of {having}, or pretrained=False")
    for option, needed in MODELS[name].pretrained_needs.items():
        if options[option] != needed:
            raise ValueError(
                f"pretrained=True: the ImageNet weights of {name} need {option}={needed!r}, their shapes"
                f" do not fit {option}={options[option]!r}; set {option}={needed!r} or pretrained=False"
            )


def build_model(name: str, num_classes: int, pretrained: bool = False, **options) -> nn.Module:
    """A network whose forward maps images [B, 3, H, W] to logits [B, num_classes]; `model.taps` names its
    feature maps and its classifier for `Observed`. Freshly initialised from torch's global generator, or, with
    `pretrained`, from torchvision's ImageNet weights (a classifier of another size stays new).

    Raises ValueError as `check_model` does and for num_classes < 1; FileNotFoundError where the weights are
    neither stored nor to be had.
    """
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes={num_classes!r} must be a whole number of at least 1")
    options = check_model(name, pretrained, options)
    architecture = MODELS[name]
    model = architecture.build(num_classes, **options, **({"pretrained": True} if pretrained else {}))
    model.taps = architecture.taps
    return model

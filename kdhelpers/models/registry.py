"""The networks by name. A new family is one file with its ARCHITECTURES, and one line here."""

from bisect import bisect_right
from collections.abc import Collection, Mapping

import torch
from torch import nn

from kdhelpers.models.architecture import Architecture, Choice
from kdhelpers.models.complexity import count_parameters
from kdhelpers.models.networks import (
    bottleneck_resnet,
    cifar_resnet,
    mobilenet_v2,
    shake_shake,
    shufflenet_v1,
    shufflenet_v2,
    torchvision_resnet,
    vgg,
    wide_resnet,
)

MODELS: dict[str, Architecture] = {
    **cifar_resnet.ARCHITECTURES,
    **wide_resnet.ARCHITECTURES,
    **vgg.ARCHITECTURES,
    **mobilenet_v2.ARCHITECTURES,
    **shufflenet_v1.ARCHITECTURES,
    **shufflenet_v2.ARCHITECTURES,
    **bottleneck_resnet.ARCHITECTURES,
    **torchvision_resnet.ARCHITECTURES,
    **shake_shake.ARCHITECTURES,
}


def check_model(name: str, pretrained: bool = False, options: Mapping[str, object] | None = None) -> dict:
    """All options of a network, defaults filled in (but those of `Architecture.later`, which are left out at their
    default). Texts are read as the number or flag they stand for where an option has a range. Raises ValueError,
    listing the known ones, for an unknown name, option or value, and for ImageNet weights that do not exist or do not
    fit."""
    if name not in MODELS:
        raise ValueError(f"model={name!r} is unknown; use one of {', '.join(MODELS)}")
    architecture = MODELS[name]
    defaults = {option: next(iter(allowed)) for option, allowed in architecture.options.items()}
    chosen = dict(defaults)
    for option, value in dict(options or {}).items():
        if option not in architecture.options:
            known = ", ".join(architecture.options) or "it has none"
            raise ValueError(f"model option {option!r} is unknown to {name}; known options: {known}")
        chosen[option] = _checked(name, option, value, architecture.options[option])
    if pretrained:
        _check_pretrained(name, chosen)
    told = chosen.keys() - {option for option in architecture.later if chosen[option] == defaults[option]}
    return {option: value for option, value in chosen.items() if option in told}


def _checked(name: str, option: str, value: object, allowed: Collection | Choice) -> object:
    if isinstance(value, str) and isinstance(allowed, Choice):
        value = int(value) if value.isdecimal() else {"true": True, "false": False}.get(value.lower(), value)
    if value not in allowed:
        said = allowed if isinstance(allowed, Choice) else f"one of {', '.join(map(repr, allowed))}"
        raise ValueError(f"model option {option}={value!r} of {name} must be {said}")
    return value


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
    """A network whose forward maps images [B, 3, H, W] to logits [B, num_classes]; `model.return_nodes` names its
    feature maps and its classifier for `FeatureExtractor`. Freshly initialised from torch's global generator, or, with
    `pretrained`, from torchvision's ImageNet weights (a classifier of another size stays new).

    Raises ValueError as `check_model` does and for num_classes < 1; FileNotFoundError where the weights are
    neither stored nor to be had.
    """
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes={num_classes!r} must be a whole number of at least 1")
    options = check_model(name, pretrained, options)
    architecture = MODELS[name]
    model = architecture.build(num_classes, **options, **({"pretrained": True} if pretrained else {}))
    model.return_nodes = architecture.return_nodes
    return model


def require_small(name: str, num_classes: int, options: Mapping[str, object], limit: int) -> int:
    """The parameters of a network of `MODELS`, if they are at most `limit`.

    Raises ValueError that gives the count and the largest `base_channels` that fits, where it has that option.
    """

    def size(**changed: object) -> int:
        with torch.device("meta"):  # shapes alone: no memory, no random numbers
            return count_parameters(build_model(name, num_classes, **{**options, **changed}))

    found, widths = size(), MODELS[name].options.get("base_channels")
    if found <= limit:
        return found
    fitting = bisect_right(widths.allowed, limit, key=lambda width: size(base_channels=width)) if widths else 0
    remedy = (
        f"base_channels={widths.allowed[fitting - 1]} is the largest that fits" if fitting else "take a smaller one"
    )
    raise ValueError(f"model = {name}: has {found:,} parameters, more than max_parameters = {limit:,}; {remedy}")

"""The networks by name. A new family is one file with its ARCHITECTURES in `networks`, and one line here."""

from bisect import bisect_right
from collections.abc import Collection, Mapping

import torch
from torch import nn

from kdhelpers.models.architecture import Architecture, Choice
from kdhelpers.models.complexity import count_parameters
from kdhelpers.models.external import FORMS, NODE_OPTIONS, build_external, check_external, is_external
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
from kdhelpers.nearest import check_known
from kdhelpers.python_paths import is_python_path, use_network
from kdhelpers.registry import Registry

MODELS = Registry(
    "MODELS",
    lambda entry: isinstance(entry, Architecture),
    "write Architecture(build, feature_maps, classifier)",
    {
        **cifar_resnet.ARCHITECTURES,
        **wide_resnet.ARCHITECTURES,
        **vgg.ARCHITECTURES,
        **mobilenet_v2.ARCHITECTURES,
        **shufflenet_v1.ARCHITECTURES,
        **shufflenet_v2.ARCHITECTURES,
        **bottleneck_resnet.ARCHITECTURES,
        **torchvision_resnet.ARCHITECTURES,
        **shake_shake.ARCHITECTURES,
    },
)


def is_network(name: object) -> bool:
    """Whether the text names an architecture: of the registry, of torchvision or timm, or by Python path."""
    return name in MODELS or is_external(name)


def check_network(name: object, field: str = "model") -> None:
    """ValueError with the nearest names unless `is_network`. Names of libraries are looked up by `check_model`."""
    if not is_network(name):
        try:
            check_known(field, name, MODELS)
        except ValueError as error:
            raise ValueError(f"{error}; other networks: {FORMS}") from None


def option_names(name: str) -> list[str]:
    """The options that the package knows; a network of a library or of the user's own may take others."""
    return list(NODE_OPTIONS if is_external(name) else default_options(name))


def default_options(name: str) -> dict:
    """The options of a network at their defaults; {} for one that is not of the registry."""
    if name not in MODELS:
        return {}
    return {option: next(iter(allowed)) for option, allowed in MODELS[name].options.items()}


def check_model(name: str, pretrained: bool = False, options: Mapping[str, object] | None = None) -> dict:
    """All options of a network: the given ones, and the defaults of the others; the given ones of other networks.

    A text is read as a number or flag if the option is a `Choice`. Raises ValueError that lists the valid ones for an
    unknown name, option or value, and ValueError for ImageNet weights that do not exist or do not fit.
    """
    check_network(name)
    if is_external(name):
        return check_external(name, pretrained, options or {})
    complete = default_options(name)
    for option, value in (options or {}).items():
        check_known(f"option of model {name}", option, complete)
        complete[option] = _checked(name, option, value, MODELS[name].options[option])
    if pretrained:
        _check_pretrained(name, complete)
    return complete


def _checked(name: str, option: str, value: object, allowed: Collection | Choice) -> object:
    if isinstance(value, str) and isinstance(allowed, Choice):
        value = int(value) if value.isdecimal() else {"true": True, "false": False}.get(value.lower(), value)
    if value not in allowed:
        text = allowed if isinstance(allowed, Choice) else f"one of {', '.join(map(repr, allowed))}"
        raise ValueError(f"model option {option}={value!r} of {name} must be {text}")
    return value


def _check_pretrained(name: str, options: Mapping[str, object]) -> None:
    if not MODELS[name].pretrained:
        others = ", ".join(other for other, architecture in MODELS.items() if architecture.pretrained)
        raise ValueError(f"pretrained=True: {name} has no ImageNet weights; use one of {others}, or pretrained=False")
    for option, needed in MODELS[name].pretrained_needs.items():
        if options[option] != needed:
            raise ValueError(
                f"pretrained=True: the ImageNet weights of {name} need {option}={needed!r}, their shapes"
                f" do not fit {option}={options[option]!r}; set {option}={needed!r} or pretrained=False"
            )


def build_model(
    name: str, num_classes: int, pretrained: bool = False, image_size: int | None = None, **options
) -> nn.Module:
    """A network: images [B, 3, H, W] -> logits [B, num_classes]; `return_nodes` names its feature maps and classifier.

    name: of `MODELS`, `torchvision:NAME`, `timm:NAME`, or a Python path such as `my_models:TinyNet`, which is imported.
    image_size: the side of the images, for networks that need it; by default 32. The weights are drawn from torch's
    global generator. With `pretrained` they are the library's, for the registry torchvision's ImageNet weights; the
    classifier is drawn unless num_classes fits. Raises ValueError as `check_model` does and for num_classes < 1;
    FileNotFoundError if the weights are not stored and cannot be downloaded.
    """
    if is_python_path(name):
        use_network(name)
    return rebuild_model(name, num_classes, pretrained, image_size, **options)


def rebuild_model(
    name: str, num_classes: int, pretrained: bool = False, image_size: int | None = None, **options
) -> nn.Module:
    """`build_model` for a name that a file or a Run holds: the user must have given a Python path before."""
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes={num_classes!r} must be a whole number of at least 1")
    options = check_model(name, pretrained, options)
    if is_external(name):
        return build_external(name, num_classes, pretrained, image_size, options)
    architecture = MODELS[name]
    model = architecture.build(num_classes, **options, **({"pretrained": True} if pretrained else {}))
    if not isinstance(model, nn.Module):
        raise TypeError(f"MODELS[{name!r}].build: returned a {type(model).__name__}; return an nn.Module")
    model.return_nodes = architecture.return_nodes
    return model


def require_small(name: str, num_classes: int, options: Mapping[str, object], limit: int) -> int:
    """The number of parameters of a network.

    Raises ValueError if it exceeds `limit`; the message gives the largest `base_channels` that fits.
    """

    def size(**changed: object) -> int:
        with torch.device("meta"):  # shapes alone: no memory, no random numbers
            return count_parameters(build_model(name, num_classes, **{**options, **changed}))

    if is_external(name):
        parameters, widths = count_parameters(rebuild_model(name, num_classes, **options)), None
    else:
        parameters, widths = size(), MODELS[name].options.get("base_channels")
    if parameters <= limit:
        return parameters
    fitting = bisect_right(widths.allowed, limit, key=lambda width: size(base_channels=width)) if widths else 0
    remedy = f"base_channels={widths.allowed[fitting - 1]} is the largest to fit" if fitting else "take a smaller one"
    raise ValueError(f"model = {name}: has {parameters:,} parameters, more than max_parameters = {limit:,}; {remedy}")

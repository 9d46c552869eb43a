"""Networks that are not of the registry, by name: of torchvision, of timm, by Python path."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from kdhelpers.messages import inform
from kdhelpers.models.external.libraries import build_library, check_library, library_facts
from kdhelpers.models.external.nodes import return_nodes
from kdhelpers.models.external.own import build_own, check_own, parsed
from kdhelpers.models.external.trace import Trace, trace
from kdhelpers.models.feature_extractor import ReturnNodes
from kdhelpers.python_paths import LIBRARIES, is_python_path

FORMS = "torchvision:NAME, timm:NAME, my_models:TinyNet or path/to/file.py:TinyNet"
NODE_OPTIONS = ("feature_maps", "embedding")  # which nodes are taken, for every external network
IMAGE_SIZE = 32  # of a network that is built for no data set
_inform_once = cache(inform)


def is_external(name: object) -> bool:
    return isinstance(name, str) and (name.partition(":")[0] in LIBRARIES and ":" in name or is_python_path(name))


def check_external(name: str, pretrained: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """The given options: numbers read from texts, feature_maps from a text with commas; of a Python path also `source`.

    A Python path is imported, which the user must have given. Raises ValueError for an unknown name or option.
    """
    nodes = {option: options[option] for option in NODE_OPTIONS if options.get(option)}
    others = {option: parsed(value) for option, value in options.items() if option not in NODE_OPTIONS}
    check = check_own if is_python_path(name) else check_library
    if isinstance(maps := nodes.get("feature_maps"), str):
        nodes["feature_maps"] = parsed(maps) if maps.startswith("[") else [path.strip() for path in maps.split(",")]
    return check(name, pretrained, others) | nodes


def build_external(
    name: str, num_classes: int, pretrained: bool, image_size: int | None, options: Mapping[str, Any]
) -> nn.Module:
    """A network with its `return_nodes`, for images of this size. options: of `check_external`.

    The user is informed if a map has 1x1 pixels. Raises ValueError for a network that does not take such images, or
    whose logits are not one per class.
    """
    image_size = image_size or IMAGE_SIZE
    own = {option: value for option, value in options.items() if option not in NODE_OPTIONS}
    build = build_own if is_python_path(name) else build_library
    network = build(name, num_classes, pretrained, image_size, own)
    try:
        network.return_nodes, traced = _nodes(network, num_classes, image_size, options)
    except ValueError as error:
        raise ValueError(f"model = {name}: {error}") from error
    _warn_of_one_pixel(name, network.return_nodes, traced, image_size)
    return network


def _nodes(
    network: nn.Module, num_classes: int, image_size: int, options: Mapping[str, Any]
) -> tuple[ReturnNodes, Trace]:
    for path, parameter in network.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            fault = f"its parameter {path} is {str(parameter.dtype).removeprefix('torch.')}"
            raise ValueError(f"{fault}; build it in float32, and choose the precision of the Run")
    traced = trace(network, image_size)
    if traced.logits.shape[1:] != (num_classes,):
        linear = [call for call in traced.calls.values() if isinstance(call.module, nn.Linear)]
        last = f"; its last nn.Linear is {linear[-1].path}, {linear[-1].module.out_features} wide" if linear else ""
        raise ValueError(
            f"outputs {tuple(traced.logits.shape[1:])} for an image, the data have {num_classes} classes{last}; take "
            "an argument num_classes and give it to the last layer"
        )
    return return_nodes(traced, options.get("feature_maps", ()), options.get("embedding", "")), traced


def _warn_of_one_pixel(name: str, nodes: ReturnNodes, traced: Trace, image_size: int) -> None:
    tiny = [path for path in nodes.feature_maps.values() if traced.calls[path].side == 1]
    if tiny:
        remedy = "take larger images" + " or a smaller patch_size" * bool(nodes.layouts)
        _inform_once(f"model = {name}: images of {image_size} px are 1x1 pixel from {tiny[0]} on; {remedy}")


def build_facts(name: str, pretrained: bool) -> dict[str, str]:
    """The library of an external network, its version and the weights; {} for a Python path."""
    return {} if is_python_path(name) else library_facts(name, pretrained)

"""Networks of torchvision and timm: `torchvision:mobilenet_v3_small`, `timm:vit_tiny_patch16_224`.

A name is looked up in the library's own list of classification networks; it is never read as a path or an address.
"""

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from kdhelpers.models.networks.torchvision_resnet import imagenet_weights
from kdhelpers.nearest import guess

TAKES_IMAGE_SIZE = {"vit_": "image_size", "maxvit": "input_size"}  # beginning of torchvision's name -> its argument
WITHOUT_AUXILIARY = dict.fromkeys(("googlenet", "inception_v3"), {"aux_logits": False, "init_weights": False})
INSTALL = {"timm": "pip install -r requirements-timm.txt", "torchvision": "pip install torchvision"}


def check_library(name: str, pretrained: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options. Raises ValueError for a missing library, an unknown name (with the nearest ones), weights that the
    library lacks, and an option that is not a number: a text could name a file or an address."""
    library, _, entry = name.partition(":")
    known = _names(library, name)
    base, _, tag = entry.partition(".")
    if base not in known:
        near = guess(entry, known, 3)
        raise ValueError(
            f"model = {name}: {library} has no such network; {near}`python -m kdhelpers network {library}` lists all"
        )
    weights = _weights(library, base) if pretrained or tag else []
    if tag and tag not in weights:
        raise ValueError(
            f"model = {name}: {library} has no weights {tag} of {base}; known: {', '.join(weights) or 'none'}"
        )
    if pretrained and not weights:
        raise ValueError(f"pretrained = True: {library} offers no weights of {base}; take pretrained=False")
    for option, value in options.items():
        if not isinstance(value, int | float) or option == "pretrained":
            raise ValueError(f"model option {option}={value!r} of {name}: must be a number, as in patch_size=4")
    return dict(options)


def library_names(library: str, text: str = "") -> list[str]:
    """The names of the library's networks that contain `text`, as a Run takes them."""
    return [f"{library}:{name}" for name in _names(library, f"{library}:") if text in name]


def library_facts(name: str, pretrained: bool) -> dict[str, str]:
    """Library, version and weights, as the record of a training holds them."""
    library, _, entry = name.partition(":")
    base, _, tag = entry.partition(".")
    weights = {"weights": tag or _weights(library, base)[0]} if pretrained else {}
    return {"name": library, "version": importlib.metadata.version(library), **weights}


def build_library(
    name: str, num_classes: int, pretrained: bool, image_size: int | None, options: Mapping[str, Any]
) -> nn.Module:
    """Raises ValueError for options or an image size that the network does not take; FileNotFoundError for weights that
    are neither stored nor downloadable."""
    library, _, entry = name.partition(":")
    with _faults(name, image_size, options):
        return BUILD[library](entry, num_classes, pretrained, image_size, dict(options))


@contextlib.contextmanager
def _faults(name: str, image_size: int | None, options: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        given = ", ".join(f"{option}={value}" for option, value in {"image_size": image_size, **options}.items())
        text = " ".join(str(error).split())
        raise ValueError(f"model = {name}: cannot be built with {given} ({text}); change these values") from error


def _torchvision(
    entry: str, num_classes: int, pretrained: bool, image_size: int | None, options: dict[str, Any]
) -> nn.Module:
    from torchvision import models

    options |= WITHOUT_AUXILIARY.get(entry, {})
    for beginning, argument in TAKES_IMAGE_SIZE.items():
        if entry.startswith(beginning) and image_size:
            options[argument] = image_size if argument == "image_size" else (image_size, image_size)
    network = models.get_model(entry, num_classes=num_classes, **options)
    if not pretrained:
        return network
    state, own = imagenet_weights(entry), network.state_dict()
    if (key := "encoder.pos_embedding") in own and own[key].shape != state[key].shape:
        state = models.vision_transformer.interpolate_embeddings(image_size, network.patch_size, state)
    heads = ((num_classes,), (1000,))  # first sides of the classifier's weight and bias, drawn and stored
    drawn = {key for key, value in own.items() if (value.shape[:1], state.get(key, value).shape[:1]) == heads}
    for key in state.keys() - own.keys():  # of auxiliary classifiers
        del state[key]
    state.update({key: own[key] for key in drawn})  # in place, as the mapping has a version of its own
    network.load_state_dict(state)
    return network


def _timm(entry: str, num_classes: int, pretrained: bool, image_size: int | None, options: dict[str, Any]) -> nn.Module:
    import timm

    fixed = getattr(timm.models.get_pretrained_cfg(entry), "fixed_input_size", False)
    size = {"img_size": image_size} if fixed and image_size else {}
    try:
        return timm.create_model(entry, pretrained=pretrained, num_classes=num_classes, **size, **options)
    except Exception as error:  # the hub's client has errors of its own, some of them OSErrors
        if not pretrained or isinstance(error, TypeError | AssertionError):
            raise
        text = " ".join(str(error).split())
        raise FileNotFoundError(
            f"pretrained: {entry}: the weights are neither stored nor downloaded ({text}); go online once, or set "
            "pretrained=False"
        ) from error


BUILD = {"torchvision": _torchvision, "timm": _timm}


def _names(library: str, name: str) -> list[str]:
    try:
        if library == "timm":
            os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when timm imports the hub's client
            import timm

            return timm.list_models()
        from torchvision import models

        return models.list_models(module=models)
    except ImportError as error:
        raise ValueError(f"model = {name}: needs {library}, which is not installed: {INSTALL[library]}") from error


def _weights(library: str, base: str) -> list[str]:
    """The names of the weights that the library offers; the one that is taken stands first."""
    if library == "timm":
        import timm

        default = getattr(timm.models.get_pretrained_cfg(base), "tag", "")
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{base}.*")]
        return sorted(tags, key=lambda tag: tag != default)
    from torchvision import models

    return list(models.get_model_weights(base).__members__)

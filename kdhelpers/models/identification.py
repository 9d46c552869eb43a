"""Identifies the network of a state_dict by its keys and shapes, for weight files made elsewhere."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product

import torch
from torch import Tensor, nn

from kdhelpers.models.registry import MODELS

COUNTS = "num_batches_tracked"


def identify_architecture(state: Mapping[str, Tensor]) -> tuple[str, int, dict]:
    """(name, num_classes, options) of the first network of `MODELS` with exactly the keys and shapes of `state`.

    Options that do not change a shape keep their default. Raises ValueError with the nearest network if none fits.
    """
    shapes = _shapes(state)
    nearest, most, excluded = "", -1, set()
    for name, options in _candidates():
        classes, *_ = shapes.get(f"{MODELS[name].classifier}.weight") or (0,)
        if not classes or name in excluded:
            continue
        expected = _expected(MODELS[name].build, classes, tuple(options.items()))
        if expected == shapes:
            return name, classes, options
        if expected.keys() != shapes.keys():
            excluded.add(name)  # options change shapes, not keys: all combinations would take seconds
        fitting = sum(expected.get(key) == shape for key, shape in shapes.items())
        if fitting > most:
            nearest, most = f"; nearest: {name}, of which {fitting} of {len(expected)} tensors fit", fitting
    raise ValueError(f"these {len(shapes)} tensors do not fit a network of the registry{nearest}")


@cache
def _expected(build: Callable[..., nn.Module], classes: int, options: tuple) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):  # shapes alone: no memory, no random numbers
        return _shapes(build(classes, **dict(options)).state_dict())


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Without BatchNorm's counts of batches, which older files lack and the package does not use."""
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith(COUNTS)}


def _candidates() -> Iterator[tuple[str, dict]]:
    for name, architecture in MODELS.items():
        for values in product(*architecture.options.values()):
            yield name, dict(zip(architecture.options, values, strict=True))

"""Which network of the registry a state_dict fits, told by its keys and shapes: for weight files made elsewhere."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product

import torch
from torch import Tensor, nn

from kdhelpers.models.registry import MODELS, check_model

COUNTS = "num_batches_tracked"


def identify_architecture(state: Mapping[str, Tensor]) -> tuple[str, int, dict]:
    """(name, num_classes, options) of the first network of `MODELS` that has the very keys and shapes of `state`.

    Options that change no shape keep their default. Raises ValueError where none fits, naming the nearest.
    """
    found = _shapes(state)
    nearest, most, others = "", -1, set()
    for name, options in _candidates():
        classes, *_ = found.get(f"{MODELS[name].classifier}.weight") or (0,)
        if not classes or name in others:
            continue
        expected = _expected(MODELS[name].build, classes, tuple(options.items()))
        if expected == found:
            return name, classes, check_model(name, options=options)
        if expected.keys() != found.keys():
            others.add(name)  # options change shapes, not keys: trying them all would take seconds
        fitting = sum(expected.get(key) == shape for key, shape in found.items())
        if fitting > most:
            nearest, most = f"{name}, of which {fitting} of {len(expected)} tensors fit", fitting
    hint = f"; nearest: {nearest}" if nearest else ""
    raise ValueError(f"these {len(found)} tensors are of no known network{hint}")


@cache
def _expected(build: Callable[..., nn.Module], classes: int, options: tuple) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):  # shapes alone: no memory, no random numbers
        return _shapes(build(classes, **dict(options)).state_dict())


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Without BatchNorm's counts of batches, which older files lack and nothing here reads."""
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith(COUNTS)}


def _candidates() -> Iterator[tuple[str, dict]]:
    for name, architecture in MODELS.items():
        for values in product(*architecture.options.values()):
            yield name, dict(zip(architecture.options, values, strict=True))

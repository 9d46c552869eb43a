"""The epoch plan: the order of the samples and every random number of their augmentation, made at once on the CPU.

It is a pure function of (seed, epoch): a run resumes exactly, two methods with one seed see the very same images, and a
sample's draws do not depend on the batch size, on the other steps of the recipe, or on how many views are made.
"""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

from kdhelpers.data.augment import Draws, Recipe
from kdhelpers.data.randaugment import CODES

ASPECT = math.log(3 / 4), math.log(4 / 3)  # of a resized crop's box, as torchvision draws it
ATTEMPTS = 10  # boxes tried before the whole image is taken


class Plan(NamedTuple):
    order: Tensor  # int64 [N], the samples in the order they are shown
    draws: Draws  # per step of the recipe a tensor [V, N, ...], indexed by view and sample


def plan_epoch(recipe: Recipe, count: int, image_size: int, views: int, seed: int, epoch: int) -> Plan:
    """Plan one epoch over `count` square images of `image_size` pixels with `views` independent views of each.

    Draws: "crop" int64 [V, N, 2] (row, column in 0..2p), "flip" bool [V, N], "cutout" int64 [V, N, 2] (row, column of
    the centre), "randaugment" int64 [V, N, n] (codes of operations, see `randaugment`), "rotation" float [V, N] in
    degrees, "jitter" float [V, N, 4] (see `colour.jitter`), "resized_crop" int64 [V, N, 4] (top, left, height, width).
    """
    order = torch.randperm(count, generator=generator(seed, epoch, "order"))
    draws = {}
    for step, draw in DRAW.items():
        setting = getattr(recipe, step)
        if setting:
            made = [draw(setting, count, image_size, generator(seed, epoch, step, view)) for view in range(views)]
            draws[step] = torch.stack(made)
    return Plan(order, draws)


def view_keys(recipe: Recipe, plan: Plan) -> Tensor | None:
    """int64 [V, N], the number of each sample's view among all `N * recipe.views`; None where those are not finite.

    The draws are those of samples, not of places in the order.
    """
    if not recipe.views:
        return None
    count = len(plan.order)
    number = torch.arange(count)[None]
    if recipe.crop:
        row, column = plan.draws["crop"].unbind(-1)
        number = (number * (2 * recipe.crop + 1) + row) * (2 * recipe.crop + 1) + column
    if recipe.flip:
        number = number * 2 + plan.draws["flip"]
    return number


def generator(*key: int | str) -> torch.Generator:
    """A generator of its own for each key, so that no draw moves when another is added."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def _uniform(low: float, high: float, shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=source)


def _crop(padding: int, count: int, size: int, source: torch.Generator) -> Tensor:
    return torch.randint(0, 2 * padding + 1, (count, 2), generator=source)


def _flip(_: bool, count: int, size: int, source: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (count,), generator=source).bool()


def _cutout(_: int, count: int, size: int, source: torch.Generator) -> Tensor:
    return torch.randint(0, size, (count, 2), generator=source)


def _rotation(degrees: float, count: int, size: int, source: torch.Generator) -> Tensor:
    return _uniform(-degrees, degrees, (count,), source)


def _jitter(setting: tuple[float, float], count: int, size: int, source: torch.Generator) -> Tensor:
    strength, hue = setting
    factors = _uniform(1 - strength, 1 + strength, (count, 3), source)
    return torch.cat([factors, _uniform(-hue, hue, (count, 1), source)], 1)


def _randaugment(setting: tuple[int, int], count: int, size: int, source: torch.Generator) -> Tensor:
    return torch.randint(0, CODES, (count, setting[0]), generator=source)


def _resized_crop(least: float, count: int, size: int, source: torch.Generator) -> Tensor:
    area = size * size * _uniform(least, 1, (count, ATTEMPTS), source)
    ratio = _uniform(*ASPECT, (count, ATTEMPTS), source).exp()
    width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (width >= 1) & (width <= size) & (height >= 1) & (height <= size)
    first = fits.int().argmax(1, keepdim=True)
    none = ~fits.any(1, keepdim=True)
    box = torch.cat([edge.gather(1, first).masked_fill(none, size) for edge in (height, width)], 1)  # [N, 2]
    corner = (torch.rand(count, 2, generator=source) * (size - box + 1)).floor().clamp(max=size - 1)
    corner = torch.minimum(corner, size - box)  # rand may round up to 1 in float32
    return torch.cat([corner, box], 1).long()


DRAW = {
    "crop": _crop,
    "resized_crop": _resized_crop,
    "flip": _flip,
    "randaugment": _randaugment,
    "rotation": _rotation,
    "jitter": _jitter,
    "cutout": _cutout,
}

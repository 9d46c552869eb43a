"""The epoch plan: the order of the samples and every random number of their augmentation, made at once on the CPU.

It is a pure function of (seed, epoch). So a run resumes exactly, and all methods with one seed receive the same images.
A sample's draws depend neither on the batch size nor on the other steps of the recipe nor on the number of views.
"""

import hashlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

from kdhelpers.data.augmentation.geometry import direction
from kdhelpers.data.augmentation.randaugment import CODES
from kdhelpers.data.augmentation.recipe import Draws, Recipe

ASPECT = math.log(3 / 4), math.log(4 / 3)  # of a resized crop's box, as torchvision draws it
ATTEMPTS = 10  # boxes tried before the whole image is taken


class Plan(NamedTuple):
    order: Tensor  # int64 [N], the samples in the epoch's order
    draws: Draws  # per step of the recipe a tensor [V, N, ...], indexed by view and sample


def plan_epoch(recipe: Recipe, count: int, image_size: int, views: int, seed: int, epoch: int) -> Plan:
    """Plan one epoch over `count` square images of `image_size` pixels with `views` independent views of each.

    Draws: "crop" int64 [V, N, 2] (row, column in 0..2p), "flip" bool [V, N], "cutout" int64 [V, N, 2] (row, column of
    the centre), "randaugment" int64 [V, N, n] (codes of operations, see `randaugment`), "rotation" float [V, N, 2]
    (cosine and sine of the angle), "jitter" float [V, N, 4] (see `colour.jitter`), "resized_crop" int64 [V, N, 4] (top,
    left, height, width).
    """
    order = torch.randperm(count, generator=generator(seed, epoch, "order"))
    return Plan(order, _draws(recipe, count, image_size, views, seed, epoch))


def plan_recycled(recipe: Recipe, count: int, slots: int, image_size: int, views: int, seed: int, epoch: int) -> Plan:
    """Plan one epoch, counted from 1, of `slots` samples from `count` images, pass after pass over the images.

    An epoch continues the pass at which the epoch before it ended. Draws are as in `plan_epoch`, indexed by slot.
    """
    start = (epoch - 1) * slots
    passes = range(start // count, (start + slots - 1) // count + 1)
    orders = [torch.randperm(count, generator=generator(seed, number, "recycled order")) for number in passes]
    order = torch.cat(orders)[start % count :][:slots]
    return Plan(order, _draws(recipe, slots, image_size, views, seed, epoch, "recycled"))


def _draws(recipe: Recipe, count: int, image_size: int, views: int, seed: int, epoch: int, *key: str) -> Draws:
    draws = {}
    for step, draw in DRAW.items():
        if value := getattr(recipe, step):
            generators = (generator(seed, epoch, step, view, *key) for view in range(views))
            draws[step] = torch.stack([draw(value, count, image_size, rng) for rng in generators])
    return draws


def view_numbers(recipe: Recipe, draws: Draws, samples: Tensor) -> Tensor | None:
    """int64 [V, M]: each view's number, `sample * recipe.views` + its number among the views of that sample.

    draws: of `samples` [M], per step [V, M, ...]. Returns None if `recipe.views` is None.
    """
    if not recipe.views:
        return None
    number = samples[None]
    if recipe.crop:
        row, column = draws["crop"].unbind(-1)
        number = (number * (2 * recipe.crop + 1) + row) * (2 * recipe.crop + 1) + column
    if recipe.flip:
        number = number * 2 + draws["flip"]
    return number


def generator(*key: int | str) -> torch.Generator:
    """An independent generator per key, so that adding a draw changes no other."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def _uniform(low: float, high: float, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)


def _jitter(pair: tuple[float, float], n: int, size: int, rng: torch.Generator) -> Tensor:
    strength, hue = pair
    factors = _uniform(1 - strength, 1 + strength, (n, 3), rng)
    return torch.cat([factors, _uniform(-hue, hue, (n, 1), rng)], 1)


def _resized_crop(least: float, n: int, size: int, rng: torch.Generator) -> Tensor:
    area = size * size * _uniform(least, 1, (n, ATTEMPTS), rng)
    ratio = _uniform(*ASPECT, (n, ATTEMPTS), rng).exp()
    width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (width >= 1) & (width <= size) & (height >= 1) & (height <= size)
    first = fits.int().argmax(1, keepdim=True)
    none = ~fits.any(1, keepdim=True)
    box = torch.cat([edge.gather(1, first).masked_fill(none, size) for edge in (height, width)], 1)  # [N, 2]
    corner = (torch.rand(n, 2, generator=rng) * (size - box + 1)).floor().clamp(max=size - 1)
    corner = torch.minimum(corner, size - box)  # rand may round up to 1 in float32
    return torch.cat([corner, box], 1).long()


DRAW = {  # step -> its draws [n, ...]: (the recipe's value, n samples, image size, generator)
    "crop": lambda padding, n, _, rng: torch.randint(0, 2 * padding + 1, (n, 2), generator=rng),
    "resized_crop": _resized_crop,
    "flip": lambda _flip, n, _, rng: torch.randint(0, 2, (n,), generator=rng).bool(),
    "randaugment": lambda pair, n, _, rng: torch.randint(0, CODES, (n, pair[0]), generator=rng),
    "rotation": lambda degrees, n, _, rng: direction(_uniform(-degrees, degrees, (n,), rng)),
    "jitter": _jitter,
    "cutout": lambda _side, n, size, rng: torch.randint(0, size, (n, 2), generator=rng),
}

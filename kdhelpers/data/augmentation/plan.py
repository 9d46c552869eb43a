"""The epoch plan: the order of the samples and every random number of their augmentation, made at once on the CPU.

It is a pure function of (seed, epoch): a run resumes exactly, two methods with one seed see the very same images, and a
sample's draws do not depend on the batch size, on the other steps of the recipe, or on how many views are made.
"""

import hashlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

from kdhelpers.data.augmentation.randaugment import CODES
from kdhelpers.data.augmentation.recipe import Draws, Recipe

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
    return Plan(order, _draws(recipe, count, image_size, views, seed, epoch))


def plan_recycled(recipe: Recipe, count: int, places: int, image_size: int, views: int, seed: int, epoch: int) -> Plan:
    """Plan one epoch, counted from 1, of `places` places that are filled with images of `count`, pass after pass: each
    epoch goes on where the one before it ended. Draws are as in `plan_epoch`, but by place, not by sample."""
    start = (epoch - 1) * places
    passes = range(start // count, (start + places - 1) // count + 1)
    shown = [torch.randperm(count, generator=generator(seed, number, "recycled order")) for number in passes]
    order = torch.cat(shown)[start % count :][:places]
    return Plan(order, _draws(recipe, places, image_size, views, seed, epoch, "recycled"))


def _draws(recipe: Recipe, count: int, image_size: int, views: int, seed: int, epoch: int, *key: str) -> Draws:
    draws = {}
    for step, draw in DRAW.items():
        if setting := getattr(recipe, step):
            sources = (generator(seed, epoch, step, view, *key) for view in range(views))
            draws[step] = torch.stack([draw(setting, count, image_size, source) for source in sources])
    return draws


def view_numbers(recipe: Recipe, draws: Draws, samples: Tensor) -> Tensor | None:
    """int64 [V, M], the number of each shown view among all `recipe.views` of each sample; None where those are not
    finite. draws: those of `samples` [M], per step [V, M, ...]."""
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

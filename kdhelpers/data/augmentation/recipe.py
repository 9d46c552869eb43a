"""The augmentation recipe, and its application to images with given draws.

A recipe is text such as `"crop flip cutout=8"`. `plan.plan_epoch` makes the random draws, one per sample; everything
here is a pure function of the images and the draws, so resident and streamed batches have the same pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdhelpers.data.augmentation.colour import jitter
from kdhelpers.data.augmentation.geometry import Windows, resized_crop, rotate
from kdhelpers.data.augmentation.randaugment import randaugment
from kdhelpers.device import memory_format
from kdhelpers.nearest import known_names

Draws = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """The steps of an augmentation; None or False leaves a step out. The order is that of `str(recipe)`: crop or
    resized_crop, flip, randaugment, rotation, jitter, normalisation, cutout."""

    crop: int | None = None  # zero padding in pixels, before a crop of the image's size
    resized_crop: float | None = None  # smallest area of the box, as a share of the image's
    flip: bool = False  # left to right, with probability 1/2
    randaugment: tuple[int, int] | None = None  # (number of operations, magnitude in 0..30)
    rotation: int | None = None  # degrees to either side
    jitter: tuple[float, float] | None = None  # (brightness = contrast = saturation, hue)
    cutout: int | None = None  # side of the square that is set to zero, in pixels

    @property
    def computes(self) -> bool:
        """Whether a step between crop and normalisation changes pixel values, not only positions."""
        return any((self.resized_crop, self.randaugment, self.rotation, self.jitter))

    @property
    def weak(self) -> Recipe:
        """The weak augmentation: crop or resized crop, and flip."""
        return Recipe(crop=self.crop, resized_crop=self.resized_crop, flip=self.flip)

    @property
    def views(self) -> int | None:
        """Number of different views of an image by crop and flip; None if the recipe has other steps."""
        if self.computes or self.cutout:
            return None
        return (2 * (self.crop or 0) + 1) ** 2 * (1 + self.flip)

    def __str__(self) -> str:
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or value is False:
                continue
            text = "/".join(f"{part:g}" for part in value) if isinstance(value, tuple) else f"{value:g}"
            words.append(field.name if value is True or value == STEPS[field.name].default else f"{field.name}={text}")
        return " ".join(words) or "none"


def _pair(text: str) -> tuple[float, float]:
    strength, slash, hue = text.partition("/")
    return float(strength), float(hue if slash else 0)


class Step(NamedTuple):
    default: Any
    read: Callable[[str], Any]
    allows: Callable[[Any], bool]
    takes: str  # the allowed values, in words


STEPS = {
    "crop": Step(4, int, lambda pixels: pixels > 0, "a whole number of pixels above 0"),
    "resized_crop": Step(0.35, float, lambda share: 0 < share <= 1, "a share of the area in (0, 1]"),
    "flip": Step(True, str, lambda _: False, "no value"),
    "randaugment": Step(
        (2, 9),
        lambda text: tuple(map(int, text.split("/"))),
        lambda pair: len(pair) == 2 and 1 <= pair[0] <= 10 and 0 <= pair[1] <= 30,
        "operations/magnitude with operations in 1..10 and magnitude in 0..30",
    ),
    "rotation": Step(15, int, lambda degrees: 0 < degrees <= 180, "whole degrees in 1..180"),
    "jitter": Step(
        (0.4, 0.1), _pair, lambda pair: 0 <= pair[0] <= 1 and 0 <= pair[1] <= 0.5, "strength in [0, 1]/hue in [0, 0.5]"
    ),
    "cutout": Step(8, int, lambda pixels: pixels > 0, "a whole number of pixels above 0"),
}
_EXAMPLE = "crop=4 flip randaugment=2/9 rotation=15 jitter=0.4/0.1 cutout=8 or resized_crop=0.35 flip"


def parse_recipe(text: str | Recipe) -> Recipe:
    """Read a recipe such as `"crop flip jitter=0.4/0.1"`; `""` and `"none"` mean no augmentation.

    A value also follows a colon, since papermill reads no parameter whose line has a second equals sign: "crop:2".
    Raises ValueError for an unknown step, a value out of range, a repeated step, and crop with resized_crop.
    """
    if isinstance(text, Recipe):
        return text
    words = text.split() if text.strip() != "none" else []
    steps = {}
    for word in words:
        name, equals, value = word.replace(":", "=").partition("=")
        if name not in STEPS:
            raise ValueError(f"augmentation {text!r}: unknown step {name!r}; {known_names(name, STEPS)} ({_EXAMPLE})")
        if name in steps:
            raise ValueError(f"augmentation {text!r}: step {name!r} occurs twice; name it once")
        steps[name] = _read_value(name, value) if equals else STEPS[name].default
    if "crop" in steps and "resized_crop" in steps:
        raise ValueError(f"augmentation {text!r}: crop and resized_crop exclude each other; keep one")
    return Recipe(**steps)


def _read_value(name: str, text: str) -> int | float | tuple:
    step = STEPS[name]
    with contextlib.suppress(ValueError):  # not a number: refused like a number out of range
        if step.allows(value := step.read(text)):
            return value
    raise ValueError(f"augmentation step {name}={text}: {name} takes {step.takes}")


class Normalise:
    """`(pixels / 255 - mean) / std` as one multiply-add with per-row constants.

    The constants are repeated to a whole row of `width` pixels: with three channels innermost, loops of length 3 would
    cost several times as much.
    """

    def __init__(self, mean: Tensor, std: Tensor, width: int, device: torch.device | str):
        self.layout = memory_format(torch.device(device))
        mean, std = (torch.as_tensor(values, dtype=torch.float32, device=device) for values in (mean, std))
        self.scale, self.shift = (1 / (255 * std)).repeat(width), (-mean / std).repeat(width)  # [W * 3]

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 or float in 0..255, [B, H, W, 3] -> float32 [B, 3, H, W], in the device's `memory_format`."""
        rows = pixels.to(torch.float32, memory_format=torch.contiguous_format, copy=True).flatten(2)  # [B, H, W * 3]
        torch.addcmul(self.shift, rows, self.scale, out=rows)
        return rows.view(pixels.shape).permute(0, 3, 1, 2).contiguous(memory_format=self.layout)


def augment(
    images: Tensor, draws: Draws, recipe: Recipe, mean: Tensor, std: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Augment and normalise a batch: uint8 [B, 3, H, W] and one view's draws [B, ...] -> `dtype` [B, 3, H, W].

    The result has the device's `memory_format`. `draws` has one entry per step of `recipe`, see `plan_epoch`.
    """
    windows = Windows(images, recipe.crop, recipe.flip and recipe.resized_crop is None)
    index = torch.arange(len(images), device=images.device)
    pixels = windows.gather(windows.starts(index, draws))
    return finish(pixels, draws, recipe, Normalise(mean, std, images.shape[-1], images.device), dtype)


def finish(pixels: Tensor, draws: Draws, recipe: Recipe, normalise: Normalise, dtype: torch.dtype) -> Tensor:
    """Apply the steps after crop and flip: uint8 [B, H, W, 3] (any strides) -> normalised `dtype` [B, 3, H, W]."""
    if recipe.computes:
        images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255
        if recipe.resized_crop:
            images = resized_crop(images, draws["resized_crop"], draws.get("flip"))
        if recipe.randaugment:
            whole = (images * 255).round().to(torch.uint8)
            images = randaugment(whole, draws["randaugment"], recipe.randaugment[1]) / 255
        if recipe.rotation:
            images = rotate(images, draws["rotation"])
        if recipe.jitter:
            images = jitter(images, draws["jitter"])
        pixels = images.permute(0, 2, 3, 1) * 255
    images = normalise(pixels)
    if recipe.cutout:
        images = erase_square(images, draws["cutout"], recipe.cutout)
    return images if dtype == images.dtype else images.to(dtype)


def erase_square(images: Tensor, centre: Tensor, size: int) -> Tensor:
    """Set a `size` x `size` square to 0 in place, clipped at the border; `centre` int64 [B, 2] holds (row, column)."""

    def covered(length: int, middle: Tensor) -> Tensor:
        distance = torch.arange(length, device=images.device) - middle[:, None] + size // 2
        return (distance >= 0) & (distance < size)

    rows, columns = covered(images.shape[2], centre[:, 0]), covered(images.shape[3], centre[:, 1])
    return images.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0)

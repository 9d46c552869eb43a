"""Batches of augmented images: labelled ones and, in the same step, unlabelled ones.

All follow the epoch plan. Nothing inside an epoch waits for the device: the order, the labels and all draws are moved
once, before the first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kdhelpers.data.augmentation.plan import plan_epoch, plan_recycled, view_numbers
from kdhelpers.data.augmentation.recipe import Draws, Normalise, Recipe, finish
from kdhelpers.data.dataset import Data, Split
from kdhelpers.data.pixels import Pixels
from kdhelpers.device import free_memory, one_thread, to_device

ViewIds = tuple[tuple[Tensor, Tensor], ...]  # pairs (a view, int64 [B] on the CPU: each image's view number)


class Batch(NamedTuple):
    views: tuple[Tensor, ...]  # V times float [B, 3, H, W], normalised, channels_last
    labels: Tensor | None  # int64 [B]; None for unlabelled images
    index: Tensor  # int64 [B], the samples' positions in their split
    draws: Draws  # per augmentation step [V, B, ...], see `plan_epoch`; [V + 1, ...] with a weak view of its own crop
    view_ids: ViewIds = ()  # of the views that a teacher receives, if crop and flip alone make them; see `view_numbers`
    weak_view: Tensor | None = None  # one more view, by crop and flip alone (FixMatch)
    unlabelled: Batch | None = None  # other images of the same step; `view_ids` includes theirs

    def first(self, views: int) -> Batch:
        """The batch with no more than its first `views` views."""
        if len(self.views) <= views:
            return self
        draws = {step: values[:views] for step, values in self.draws.items()}
        return self._replace(views=self.views[:views], draws=draws)


@dataclass(frozen=True)
class BatchSpec:
    """Which batches are made of a data set. Raises ValueError for a batch that the processes cannot share equally.

    weak_view: "shared_crop" adds a view with the first view's crop and flip and no other step of the recipe;
    "own_crop" adds one with a crop and flip of its own; "" adds none.
    """

    recipe: Recipe
    batch_size: int  # over all processes
    views: int = 1
    seed: int = 0
    weak_view: Literal["", "shared_crop", "own_crop"] = ""
    unlabelled_batch_size: int = 0  # unlabelled images per step, over all processes; 0: none
    rank: int = 0
    world: int = 1  # number of processes; each takes every world-th position of a batch

    def __post_init__(self):
        for field in ("batch_size", "unlabelled_batch_size"):
            if (size := getattr(self, field)) % self.world:
                raise ValueError(f"{field} = {size}: {self.world} processes cannot share it equally; take a multiple")

    @property
    def teacher_recipe(self) -> Recipe:
        """The recipe of the views that a teacher receives."""
        return self.recipe.weak if self.weak_view else self.recipe

    @property
    def crops(self) -> int:
        """How many independent draws an image has."""
        return self.views + (self.weak_view == "own_crop")


class AugmentedViews:
    """Batches of augmented images, without labels. `first` is the number of the first image among all view ids."""

    def __init__(self, pixels: Pixels, spec: BatchSpec, finish: Callable[..., Tensor], first: int):
        self.pixels, self._spec, self._finish, self._first = pixels, spec, finish, first
        self._weak_crop = spec.crops - 1 if spec.weak_view == "own_crop" else 0
        self._copies_only = pixels.device.type == "cpu" and not spec.recipe.computes

    def batches(self, order: Tensor, draws: Draws, spans: list[slice]) -> Iterator[Batch]:
        """One batch for each span of `order` (int64 [M], on the CPU); draws per step [crops, M, ...], in that order."""
        numbers = view_numbers(self._spec.teacher_recipe, draws, order + self._first)
        numbers = None if numbers is None else numbers.expand(self._spec.crops, -1)[self._weak_crop :]
        draws = {step: to_device(values, self.pixels.device) for step, values in draws.items()}
        index = to_device(order, self.pixels.device)
        windows = self.pixels.windows(order, draws, spans, self._spec.crops)
        for span in spans:
            own = {step: values[:, span] for step, values in draws.items()}
            with one_thread(self._copies_only):
                crops = next(windows)
                views = tuple(self._view(crops, own, view, self._spec.recipe) for view in range(self._spec.views))
                weak_view = self._weak_view(crops, own, views[0])
            teacher_views = views if weak_view is None else (weak_view,)
            view_ids = () if numbers is None else tuple(zip(teacher_views, numbers[:, span], strict=False))
            yield Batch(views, None, index[span], own, view_ids, weak_view)

    def _weak_view(self, crops: list[Tensor], draws: Draws, first: Tensor) -> Tensor | None:
        recipe = self._spec.recipe
        if not self._spec.weak_view:
            return None
        if self._spec.weak_view == "shared_crop" and recipe == recipe.weak:
            return first
        return self._view(crops, draws, self._weak_crop, recipe.weak)

    def _view(self, crops: list[Tensor], draws: Draws, view: int, recipe: Recipe) -> Tensor:
        return self._finish(crops[view], {step: values[view] for step, values in draws.items()}, recipe)


class Batches:
    """The training batches of a data set, epoch after epoch; `len()` is the steps of an epoch.

    The last, shorter batch is kept unless it leaves a process less than two images: BatchNorm cannot train on one.
    Unlabelled images are repeated pass after pass, for as many steps as the labelled ones take.

    memory_budget_mib: for all images (None: 60 % of the GPU's free memory, half of the machine's). workers: see
    `Pixels`. `images` counts the labelled and unlabelled images, `unlabelled_per_epoch` the unlabelled ones of an
    epoch; view ids number the labelled images first. Raises ValueError for too few images to train on.
    """

    def __init__(
        self,
        data: Data,
        spec: BatchSpec,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_budget_mib: float | None = None,
        workers: int = 2,
    ):
        self.data, self.spec, self.device = data, spec, torch.device(device)
        self.teacher_recipe, self.images, self.unlabelled_per_epoch = spec.teacher_recipe, len(data.train), 0
        self._positions, self._spans = _share(len(data.train), spec.batch_size, spec)
        normalise = Normalise(data.mean, data.std, data.image_size, self.device)
        normalised = partial(finish, normalise=normalise, dtype=dtype)
        room = free_memory(self.device) / 2**20 if memory_budget_mib is None else memory_budget_mib
        pixels = Pixels(data.train.images, spec.recipe, self.device, room, workers)
        self._labelled = AugmentedViews(pixels, spec, normalised, 0)
        if spec.unlabelled_batch_size:
            room -= pixels.resident_mib
            pixels = Pixels(data.unlabelled.images, spec.recipe, self.device, room, workers)
            self._unlabelled = AugmentedViews(pixels, spec, normalised, len(data.train))
            self.images += pixels.count
            self.unlabelled_per_epoch = len(self) * spec.unlabelled_batch_size

    @property
    def resident(self) -> bool:
        return self._labelled.pixels.resident

    def __len__(self) -> int:
        return len(self._spans)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`, independent of the epochs before it."""
        split, spec = self.data.train, self.spec
        plan = plan_epoch(spec.recipe, len(split), self.data.image_size, spec.crops, spec.seed, number)
        order = plan.order[self._positions]
        labels = to_device(split.labels[order], self.device)
        draws = {step: values[:, order] for step, values in plan.draws.items()}
        batches = self._labelled.batches(order, draws, self._spans)
        others = self._unlabelled_batches(number) if spec.unlabelled_batch_size else repeat(None)
        for span, batch, unlabelled in zip(self._spans, batches, others, strict=False):
            view_ids = batch.view_ids + (unlabelled.view_ids if unlabelled else ())
            yield batch._replace(labels=labels[span], view_ids=view_ids, unlabelled=unlabelled)

    def _unlabelled_batches(self, number: int) -> Iterator[Batch]:
        spec, slots = self.spec, self.unlabelled_per_epoch
        count = self._unlabelled.pixels.count
        positions, spans = _share(slots, spec.unlabelled_batch_size, spec)
        plan = plan_recycled(spec.recipe, count, slots, self.data.image_size, spec.crops, spec.seed, number)
        draws = {step: values[:, positions] for step, values in plan.draws.items()}
        return self._unlabelled.batches(plan.order[positions], draws, spans)


def evaluation_batches(
    split: Split, batch_size: int, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"
) -> Iterator[Batch]:
    """All images of a split in their order, normalised and not augmented; the last batch may be shorter."""
    normalise = Normalise(mean, std, split.images.shape[-1], device)
    labels = to_device(split.labels, device)
    index = torch.arange(len(split), device=device)
    for start in range(0, len(split), batch_size):
        span = slice(start, start + batch_size)
        with one_thread(torch.device(device).type == "cpu"):
            images = normalise(to_device(split.images[span], device).permute(0, 2, 3, 1))
        yield Batch((images,), labels[span], index[span], {})


def _share(count: int, batch_size: int, spec: BatchSpec) -> tuple[Tensor, list[slice]]:
    """This process's positions in the epoch's order, and the slice of them in each of its batches.

    Every process has an equal share of each batch, because contrastive methods gather equal parts from all of them.
    """
    rest = count % batch_size
    count -= rest if rest < min(2 * spec.world, batch_size) else rest % spec.world
    if count == 0:
        raise ValueError(f"batch_size = {batch_size}: {rest} images are too few to train on; add images")
    positions = torch.arange(count)
    positions = positions[positions % batch_size % spec.world == spec.rank]
    ends = torch.bincount(positions // batch_size).cumsum(0).tolist()
    return positions, [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

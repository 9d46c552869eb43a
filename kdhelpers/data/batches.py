"""Batches of augmented images: labelled ones and, in the same step, unlabelled ones.

All follow the epoch plan. Nothing inside an epoch waits for the device: the order, the labels and all draws are moved
once, before the first batch. A thread makes the plan of the next epoch meanwhile.

An accelerator makes the images of several steps at once, a block, in few operations; a batch is a slice of its block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial

import torch
from torch import Tensor

from kdhelpers.data.augmentation.plan import Plan, plan_epoch, plan_recycled, view_numbers
from kdhelpers.data.augmentation.recipe import Draws, Normalise, Recipe, finish
from kdhelpers.data.batch import Batch, BatchSpec
from kdhelpers.data.dataset import Data, Split, few_in_rehearsal
from kdhelpers.data.pixels import Pixels
from kdhelpers.device import free_memory, one_thread, to_device

BLOCK_IMAGES = 1024  # of a block on an accelerator; the caches of a CPU hold the images of one step
HELD_OUT_SHARE = 0.25  # of the free memory that the validation images may take
BLOCK_MIB = 256  # the most that one view of a block takes


class AugmentedViews:
    """The steps of an epoch over the images of `pixels`, made block by block.

    count: the images of an epoch, which `batch_size` divides into steps. first: number of the first image among all
    view ids. recycled: an epoch continues the pass over the images at which the epoch before it ended.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Tensor | None,
        spec: BatchSpec,
        finish: Callable[..., Tensor],
        *,
        count: int,
        batch_size: int,
        first: int = 0,
        recycled: bool = False,
    ):
        self.pixels, self._labels, self._spec, self._finish = pixels, labels, spec, finish
        self._count, self._first, self._recycled = count, first, recycled
        self._positions, self.spans = spec.share(count, batch_size)
        self._weak_crop = spec.own_crop
        self._copies_only = pixels.device.type == "cpu" and not spec.recipe.computes

    def plan(self, number: int, image_size: int) -> Plan:
        """Order and draws of this process's images in epoch `number`; the draws in that order, too."""
        facts = image_size, self._spec.crops, self._spec.seed, number
        if self._recycled:
            order, draws = plan_recycled(self._spec.recipe, self.pixels.count, self._count, *facts)
            places = self._positions
        else:
            order, draws = plan_epoch(self._spec.recipe, self._count, *facts)
            places = order[self._positions]
        return Plan(order[self._positions], {step: values[:, places] for step, values in draws.items()})

    def blocks(self, plan: Plan, steps: int) -> Iterator[list[Batch]]:
        """The batches of a planned epoch, `steps` at a time."""
        groups = [self.spans[start : start + steps] for start in range(0, len(self.spans), steps)]
        spans = [slice(group[0].start, group[-1].stop) for group in groups]
        for group, block in zip(groups, self._cut(plan, spans), strict=True):
            start = group[0].start
            yield [block.cut(slice(span.start - start, span.stop - start)) for span in group]

    def _cut(self, plan: Plan, spans: list[slice]) -> Iterator[Batch]:
        """The images of each span as one batch."""
        device, (order, draws) = self.pixels.device, plan
        numbers = view_numbers(self._spec.teacher_recipe, draws, order + self._first)
        numbers = None if numbers is None else numbers.expand(self._spec.crops, -1)[self._weak_crop :]
        draws = {step: to_device(values, device) for step, values in draws.items()}
        labels = None if self._labels is None else to_device(self._labels[order], device)
        index = to_device(order, device)
        windows = self.pixels.windows(order, draws, spans, self._spec.crops)
        for span in spans:
            own = {step: values[:, span] for step, values in draws.items()}
            with one_thread(self._copies_only):
                crops = next(windows)
                views = tuple(self._view(crops, own, view, self._spec.recipe) for view in range(self._spec.views))
                weak_view = self._weak_view(crops, own, views[0])
            ids, known = None if numbers is None else numbers[:, span], None if labels is None else labels[span]
            yield Batch(views, known, index[span], own, weak_view, ids)

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
    `Pixels`. block_steps: the steps of a block; None means 1 on a CPU, and BLOCK_IMAGES images on an accelerator.
    `images` counts the labelled and unlabelled images, `unlabelled_per_epoch` the unlabelled ones of an epoch; view ids
    number the labelled images first. Raises ValueError for too few images to train on.
    """

    def __init__(
        self,
        data: Data,
        spec: BatchSpec,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_budget_mib: float | None = None,
        workers: int = 2,
        block_steps: int | None = None,
    ):
        self.data, self.spec, self.device = data, spec, torch.device(device)
        self.teacher_recipe, self.images, self.unlabelled_per_epoch = spec.teacher_recipe, len(data.train), 0
        self._block_steps = block_steps or _block_steps(data.image_size, spec.batch_size, self.device)
        normalise = Normalise(data.mean, data.std, data.image_size, self.device)
        normalised = partial(finish, normalise=normalise, dtype=dtype)
        room = free_memory(self.device) / 2**20 if memory_budget_mib is None else memory_budget_mib
        pixels, labels = Pixels(data.train.images, spec.recipe, self.device, room, workers), data.train.labels
        sizes = {"count": len(data.train), "batch_size": spec.batch_size}
        self._streams = [AugmentedViews(pixels, labels, spec, normalised, **sizes)]
        if size := spec.unlabelled_batch_size:
            room -= pixels.resident_mib
            pixels = Pixels(data.unlabelled.images, spec.recipe, self.device, room, workers)
            self.images += pixels.count
            self.unlabelled_per_epoch = len(self) * size
            sizes = {"count": self.unlabelled_per_epoch, "batch_size": size, "first": len(data.train)}
            self._streams.append(AugmentedViews(pixels, None, spec, normalised, **sizes, recycled=True))
        self._planner, self._planned = ThreadPoolExecutor(1), (None, None)

    @cached_property
    def held_out(self) -> Split:
        """The validation images, on the device unless they are too many. All students of a loop share them."""
        val, _ = few_in_rehearsal(self.data.val)
        images, room = val.images, HELD_OUT_SHARE * free_memory(self.device)
        on_device = to_device(images, self.device) if images.nbytes <= room else images
        return Split(on_device, to_device(val.labels, self.device))

    @property
    def resident(self) -> bool:
        return self._streams[0].pixels.resident

    def __len__(self) -> int:
        return len(self._streams[0].spans)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`, independent of the epochs before it."""
        planned, plans = self._planned
        plans = plans.result() if planned == number else self._plan(number)
        blocks = [stream.blocks(plan, self._block_steps) for stream, plan in zip(self._streams, plans, strict=True)]
        for place, steps in enumerate(zip(*blocks, strict=True)):
            if place == 0:  # after the DataLoader has started its workers: a process with threads is not safe to fork
                self._planned = number + 1, self._planner.submit(self._plan, number + 1)
            for batch, *unlabelled in zip(*steps, strict=True):
                yield batch._replace(unlabelled=next(iter(unlabelled), None))

    def _plan(self, number: int) -> list[Plan]:
        return [stream.plan(number, self.data.image_size) for stream in self._streams]


def _block_steps(image_size: int, batch_size: int, device: torch.device) -> int:
    if device.type == "cpu":
        return 1
    most = BLOCK_MIB * 2**20 // (3 * image_size**2 * 4)
    return max(1, min(BLOCK_IMAGES, most) // batch_size)


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

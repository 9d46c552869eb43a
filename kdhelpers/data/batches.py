"""Batches of augmented images, labelled ones and, beside them, images without labels.

All follow the epoch plan. Nothing inside an epoch waits for the device: the order, the labels and all draws are moved
once, before the first batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kdhelpers.data.augmentation.plan import number_views, plan_epoch, plan_recycled
from kdhelpers.data.augmentation.recipe import Draws, Normalise, Recipe, finish, parse_recipe
from kdhelpers.data.dataset import Split
from kdhelpers.data.pixels import Pixels
from kdhelpers.device import free_memory, one_thread, to_device

WeakView = Literal["", "shared_crop", "own_crop"]
ViewIds = tuple[tuple[Tensor, Tensor], ...]  # (a view, int64 [B] on the CPU: which of finitely many each image's is)


class Shown(NamedTuple):
    """What is seen of some images. There is no place for labels: of unlabelled images a batch has this alone."""

    views: tuple[Tensor, ...]  # V times float [B, 3, H, W], normalised, channels_last
    index: Tensor  # int64 [B], the samples' places among their images
    draws: Draws  # per augmentation step [V, B, ...], see `plan_epoch`; [V + 1, ...] with a gentle view of its own crop
    view_ids: (
        ViewIds  # the views that a teacher is asked about, where crop and flip alone make them, see `number_views`
    )
    weak_view: Tensor | None  # one more view like the others, by crop and flip alone, where it was asked for


class Batch(NamedTuple):
    views: tuple[Tensor, ...]  # these as in Shown
    labels: Tensor  # int64 [B]
    index: Tensor
    draws: Draws
    view_ids: ViewIds = ()  # with those of `unlabelled`
    weak_view: Tensor | None = None
    unlabelled: Shown | None = None  # other images of the same step

    def first(self, views: int) -> Batch:
        """The batch with no more than its first `views` views."""
        if len(self.views) <= views:
            return self
        draws = {step: values[:views] for step, values in self.draws.items()}
        return self._replace(views=self.views[:views], draws=draws)


class _Show:
    """Images through a recipe: `views` of them and, if any, the gentle one. `first` is their first sample's number."""

    def __init__(
        self, pixels: Pixels, recipe: Recipe, views: int, weak_view: WeakView, normalise: Normalise, dtype, first
    ):
        self.pixels, self.recipe, self.views, self.weak_view, self.first = pixels, recipe, views, weak_view, first
        self.drawn = views + (weak_view == "own_crop")
        self._normalise, self._dtype = normalise, dtype
        self._copies_only = pixels.device.type == "cpu" and not recipe.computes

    def steps(self, order: Tensor, draws: Draws, spans: list[slice]) -> Iterator[Shown]:
        """What each span of `order` (int64 [M], on the CPU) shows; draws per step [drawn, M, ...], as it has them."""
        keys = number_views(self.recipe.weak if self.weak_view else self.recipe, draws, order + self.first)
        keys = keys if keys is None else keys.expand(self.drawn, -1)
        draws = {step: to_device(values, self.pixels.device) for step, values in draws.items()}
        index = to_device(order, self.pixels.device)
        windows = self.pixels.windows(order, draws, spans, self.drawn)
        for span in spans:
            drawn = {step: values[:, span] for step, values in draws.items()}
            with one_thread(self._copies_only):
                cut = next(windows)
                views = tuple(self._finish(cut[view], drawn, view, self.recipe) for view in range(self.views))
                weak_view = self._weak_view(cut, drawn, views[0])
            view_ids = () if keys is None else self._view_ids(views, weak_view, keys[:, span])
            yield Shown(views, index[span], drawn, view_ids, weak_view)

    def _view_ids(self, views: tuple[Tensor, ...], weak_view: Tensor | None, keys: Tensor) -> ViewIds:
        return tuple(zip(views, keys, strict=False)) if weak_view is None else ((weak_view, keys[self._weak_draw]),)

    @property
    def _weak_draw(self) -> int:
        return self.drawn - 1 if self.weak_view == "own_crop" else 0

    def _weak_view(self, cut: list[Tensor], drawn: Draws, first: Tensor) -> Tensor | None:
        if not self.weak_view:
            return None
        if self.weak_view == "shared_crop" and self.recipe == self.recipe.weak:
            return first
        return self._finish(cut[self._weak_draw], drawn, self._weak_draw, self.recipe.weak)

    def _finish(self, window: Tensor, drawn: Draws, view: int, recipe: Recipe) -> Tensor:
        own = {step: values[view] for step, values in drawn.items()}
        return finish(window, own, recipe, self._normalise, self._dtype)


class Batches:
    """The batches of a split, epoch after epoch.

    `len()` is the steps of an epoch. The last, shorter batch is kept unless it leaves a process less than two images,
    on which BatchNorm cannot train. With `world` processes each takes every world-th position of a global batch of
    `batch_size`. `memory_budget_mib` (None: 60 % of the GPU's free memory, half of the machine's) is for all images,
    `workers` are those of `Pixels`.

    weak_view: "shared_crop" adds a view of the first view's crop (`Batch.weak_view`) without the steps that change pixels, "own
    crop" one of a crop and flip of its own. unlabelled: uint8 [M, 3, H, W], of which every batch shows
    `unlabelled_batch_size` (None: batch_size) beside its labelled images, pass after pass, as often as the epochs take.

    `images` is how many there are to look at, `unlabelled_per_epoch` how many unlabelled ones an epoch shows; `taught`
    is the recipe of the views that a teacher is asked about: what `view_ids` numbers, labelled images first.

    Raises ValueError for an unknown augmentation, and for a split or a batch size too small to train on.
    """

    def __init__(
        self,
        split: Split,
        recipe: Recipe | str,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        views: int = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_budget_mib: float | None = None,
        workers: int = 2,
        rank: int = 0,
        world: int = 1,
        weak_view: WeakView = "",
        unlabelled: Tensor | None = None,
        unlabelled_batch_size: int | None = None,
    ):
        self.split, self.recipe, self.seed = split, parse_recipe(recipe), seed
        self.device = torch.device(device)
        self.image_size = split.images.shape[-1]
        self._positions, self._spans = _share(len(split), batch_size, rank, world)
        self._labels = to_device(split.labels, self.device)
        normalise = Normalise(mean, std, self.image_size, self.device)

        room = free_memory(self.device) / 2**20 if memory_budget_mib is None else memory_budget_mib

        def show(images: Tensor, first: int, room: float) -> _Show:
            pixels = Pixels(images, self.recipe, self.device, room, workers)
            return _Show(pixels, self.recipe, views, weak_view, normalise, dtype, first)

        self.taught = self.recipe.weak if weak_view else self.recipe
        self.images = len(split) + (0 if unlabelled is None else len(unlabelled))
        self._show = show(split.images, 0, room)
        left = room - self._show.pixels.resident_mib
        self._others = None if unlabelled is None else show(unlabelled, len(split), left)
        self._beside = _beside(unlabelled_batch_size or batch_size, len(self), rank, world)
        self.unlabelled_per_epoch = self._beside[2] if self._others else 0

    @property
    def resident(self) -> bool:
        return self._show.pixels.resident

    def __len__(self) -> int:
        return len(self._spans)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`, whichever epochs came before."""
        plan = plan_epoch(self.recipe, len(self.split), self.image_size, self._show.drawn, self.seed, number)
        mine = plan.order[self._positions]
        labels = self._labels.index_select(0, to_device(mine, self.device))
        draws = {step: values[:, mine] for step, values in plan.draws.items()}
        labelled = self._show.steps(mine, draws, self._spans)
        others = self._unlabelled_steps(number) if self._others else repeat(None)
        for span, shown, other in zip(self._spans, labelled, others, strict=False):
            view_ids = shown.view_ids + (other.view_ids if other else ())
            yield Batch(shown.views, labels[span], shown.index, shown.draws, view_ids, shown.weak_view, other)

    def _unlabelled_steps(self, number: int) -> Iterator[Shown]:
        positions, spans, slots = self._beside
        images = self._others.pixels.count
        plan = plan_recycled(self.recipe, images, slots, self.image_size, self._others.drawn, self.seed, number)
        draws = {step: values[:, positions] for step, values in plan.draws.items()}
        return self._others.steps(plan.order[positions], draws, spans)


def evaluation_batches(
    split: Split,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Iterator[Batch]:
    """All images of a split in their order, normalised and not augmented, the last batch as short as it comes."""
    normalise = Normalise(mean, std, split.images.shape[-1], device)
    labels = to_device(split.labels, device)
    index = torch.arange(len(split), device=device)
    for start in range(0, len(split), batch_size):
        span = slice(start, start + batch_size)
        with one_thread(torch.device(device).type == "cpu"):
            images = normalise(to_device(split.images[span], device).permute(0, 2, 3, 1)).to(dtype)
        yield Batch((images,), labels[span], index[span], {})


def _share(count: int, batch_size: int, rank: int, world: int) -> tuple[Tensor, list[slice]]:
    """This process's positions in the epoch's order, and the slice of them that each of its batches is.

    Every process has an equal share of each batch, so that what contrastive methods gather from all of them fits.
    """
    if batch_size % world:
        raise ValueError(f"batch_size={batch_size} cannot be shared equally by {world} processes; take a multiple")
    rest = count % batch_size
    count -= rest if rest < min(2 * world, batch_size) else rest % world
    if count == 0:
        raise ValueError(f"{rest} images are too few to train on with batch_size={batch_size}; add images")
    positions = torch.arange(count)
    mine = positions[positions % batch_size % world == rank]
    ends = torch.bincount(mine // batch_size).cumsum(0).tolist()
    return mine, [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _beside(size: int, steps: int, rank: int, world: int) -> tuple[Tensor, list[slice], int]:
    """This process's positions among those of the unlabelled images, the slice of each step, how many all have."""
    if size % world:
        raise ValueError(f"unlabelled_batch_size={size} cannot be shared equally by {world} processes; take a multiple")
    share = size // world
    return (
        torch.arange(rank, steps * size, world),
        [slice(k * share, (k + 1) * share) for k in range(steps)],
        steps * size,
    )

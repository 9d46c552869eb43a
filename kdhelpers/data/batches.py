"""Batches of augmented images: the whole split resident on the device, or streamed through a DataLoader.

Both ways follow the same epoch plan and give the same bits. Nothing inside an epoch waits for the device: the order,
the labels and all draws are moved once, before the first batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdhelpers.data.augment import Draws, Normalise, Recipe, finish, parse_recipe
from kdhelpers.data.dataset import Split
from kdhelpers.data.geometry import Windows
from kdhelpers.data.plan import plan_epoch, view_keys
from kdhelpers.device import free_memory


class Batch(NamedTuple):
    views: tuple[Tensor, ...]  # V times float [B, 3, H, W], normalised, channels_last
    labels: Tensor  # int64 [B]
    index: Tensor  # int64 [B], the samples' places in the split
    draws: Draws  # per augmentation step [V, B, ...], see `plan_epoch`
    keys: Tensor | None = None  # int64 [V, B] on the CPU, which of its finitely many views each is, see `view_keys`

    def first(self, views: int) -> Batch:
        """The batch with no more than its first `views` views."""
        if len(self.views) <= views:
            return self
        draws = {step: values[:views] for step, values in self.draws.items()}
        keys = None if self.keys is None else self.keys[:views]
        return self._replace(views=self.views[:views], draws=draws, keys=keys)


class Batches:
    """The batches of a split, epoch after epoch.

    `len()` is the steps of an epoch. The last, shorter batch is kept unless it leaves a process less than two images,
    on which BatchNorm cannot train. With `world` processes each takes every world-th position of a global batch of
    `batch_size`. The split is resident if its padded and mirrored copy fits `memory_budget_mib` (None: 60 % of the
    GPU's free memory, half of the machine's), else `workers` processes stream it.

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
    ):
        self.split, self.recipe, self.views, self.seed = split, parse_recipe(recipe), views, seed
        self.device, self.dtype = torch.device(device), dtype
        self.image_size = split.images.shape[-1]
        self._positions, self._spans = _share(len(split), batch_size, rank, world)
        self._labels = to_device(split.labels, self.device)
        self._normalise = Normalise(mean, std, self.image_size, self.device)
        self._copies_only = self.device.type == "cpu" and not self.recipe.computes
        self._layout = self.recipe.crop, self.recipe.flip and self.recipe.resized_crop is None
        budget = memory_budget_mib * 2**20 if memory_budget_mib is not None else free_memory(self.device)
        self.resident = Windows.bytes_needed(split.images.shape, *self._layout) <= budget
        if self.resident:
            self._windows = Windows(split.images, *self._layout, self.device)
        else:
            self._slices: list[Tensor] = []  # refilled every epoch; the workers live on
            self._loader = DataLoader(
                _Rows(split.images),
                sampler=self._slices,
                batch_size=None,
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=self.device.type == "cuda",
            )

    def __len__(self) -> int:
        return len(self._spans)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`, whichever epochs came before."""
        plan = plan_epoch(self.recipe, len(self.split), self.image_size, self.views, self.seed, number)
        mine = plan.order[self._positions]
        order = to_device(mine, self.device)
        draws = {step: to_device(values[:, mine], self.device) for step, values in plan.draws.items()}
        keys = view_keys(self.recipe, plan)
        keys = keys if keys is None else keys.expand(self.views, -1)[:, mine]
        labels = self._labels.index_select(0, order)
        pixels = self._resident_pixels(order, draws) if self.resident else self._streamed_pixels(mine, draws)
        for span in self._spans:
            drawn = {step: values[:, span] for step, values in draws.items()}
            with one_thread(self._copies_only):
                views = tuple(self._finish(window, view, drawn) for view, window in enumerate(next(pixels)))
            yield Batch(views, labels[span], order[span], drawn, keys if keys is None else keys[:, span])

    def _finish(self, window: Tensor, view: int, drawn: Draws) -> Tensor:
        own = {step: values[view] for step, values in drawn.items()}
        return finish(window, own, self.recipe, self._normalise, self.dtype)

    def _resident_pixels(self, order: Tensor, draws: Draws) -> Iterator[list[Tensor]]:
        starts = self._windows.starts(order, draws).expand(self.views, -1)
        for span in self._spans:
            yield [self._windows.gather(view[span]) for view in starts]

    def _streamed_pixels(self, order: Tensor, draws: Draws) -> Iterator[list[Tensor]]:
        self._slices[:] = [order[span] for span in self._spans]
        for span, images in zip(self._spans, self._loader, strict=True):
            windows = Windows(images.to(self.device, non_blocking=True), *self._layout)
            index = torch.arange(len(images), device=self.device)
            starts = windows.starts(index, {step: values[:, span] for step, values in draws.items()})
            yield [windows.gather(view) for view in starts.expand(self.views, -1)]


class _Rows:
    """The data set the DataLoader sees: a whole batch of uint8 images per index tensor."""

    def __init__(self, images: Tensor):
        self.images = images

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.images[index]


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


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Copying a batch gains little from threads and, on a busy machine, waits for them: 10 to 60 times as long on two
    cores with another process on them. So `wanted` does it alone and gives the threads back."""
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            torch.set_num_threads(threads)


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Move without making the host wait: through pinned memory where the device is a GPU."""
    if torch.device(device).type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


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

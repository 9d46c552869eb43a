"""Crop and flip of a set of images by given draws, from a copy on the device or streamed to it."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdhelpers.data.augmentation.geometry import Windows
from kdhelpers.data.augmentation.recipe import Draws, Recipe
from kdhelpers.device import to_device


class Pixels:
    """uint8 images [N, 3, H, W], read as the windows of a recipe's crop and flip.

    They are resident if their padded and mirrored copy fits `memory_budget_mib`, else `workers` processes stream them.
    Both ways give the same bits. `resident_mib` is the device memory of the resident copy, 0 if streamed.
    """

    def __init__(self, images: Tensor, recipe: Recipe, device: torch.device, memory_budget_mib: float, workers: int):
        self.device, self.count = device, len(images)
        self._layout = recipe.crop, recipe.flip and recipe.resized_crop is None
        needed = Windows.bytes_needed(images.shape, *self._layout) / 2**20
        self.resident = needed <= memory_budget_mib
        self.resident_mib = needed if self.resident else 0.0
        if self.resident:
            self._windows = Windows(images, *self._layout, device)
        else:
            self._slices: list[Tensor] = []  # refilled every epoch; the workers live on
            self._loader = DataLoader(
                _Rows(images),
                sampler=self._slices,
                batch_size=None,
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=device.type == "cuda",
            )

    def windows(self, order: Tensor, draws: Draws, spans: list[slice], count: int) -> Iterator[list[Tensor]]:
        """For each span of `order` (int64 [M], on the CPU) the `count` uint8 windows [B, H, W, 3] of its images.

        draws: on the device, per step [count, M, ...], in the order of `order`.
        """
        if self.resident:
            starts = self._windows.starts(to_device(order, self.device), draws).expand(count, -1)
            for span in spans:
                yield [self._windows.gather(view_starts[span]) for view_starts in starts]
            return
        self._slices[:] = [order[span] for span in spans]
        for span, images in zip(spans, self._loader, strict=True):
            windows = Windows(to_device(images, self.device), *self._layout)
            index = torch.arange(len(images), device=self.device)
            starts = windows.starts(index, {step: values[:, span] for step, values in draws.items()})
            yield [windows.gather(view_starts) for view_starts in starts.expand(count, -1)]


class _Rows:
    """The DataLoader's data set: an index tensor gives a whole batch of uint8 images."""

    def __init__(self, images: Tensor):
        self.images = images

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.images[index]

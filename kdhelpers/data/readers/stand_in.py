"""Noise in place of a data set that is not stored, for a rehearsal: it has the official counts and classes."""

import torch

from kdhelpers.data.dataset import Split
from kdhelpers.data.readers.arrays import Raw
from kdhelpers.data.readers.catalogue import Source

CIFAR_SIZE = 32


def noise_like(name: str, source: Source, size: int | None) -> Raw:
    """Random images at `size`, or at the data set's own size, with labels in turn."""
    side, generator = size or source.image_size or CIFAR_SIZE, torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
        return Split(images, torch.arange(count) % source.classes)

    splits = {part: split(count) for part, count in source.counts.items()}
    names = list((source.words or {}).values()) or [f"class {label}" for label in range(source.classes)]
    return Raw(splits, names, f"noise in place of {name}", verified=True)

"""Decoding of image files to uint8 RGB squares, on all cores, each file opened once: `decode`."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from kdhelpers.data.findings import Findings
from kdhelpers.data.readers.image import Image, Ranges, range_of, read_image, resized
from kdhelpers.data.readers.memory import fitting_size, free_memory
from kdhelpers.display.progress import progress_bar

Item = tuple[str, Path | bytes]  # (name in findings, path or content of an image)
SLOW, SLOW_FILES = 0.05, 50  # seconds to read a file, as from a mounted drive; files after which that is judged
DARK = 127  # of 255: half of what the upper 8 bits of 16 can hold
COPIES = 2  # of all images, which loading needs at its peak: the validation split copies them


@dataclass
class Decoded:
    """Of the items that could be decoded (`kept`): pixels, sizes and sha256 of the content."""

    images: np.ndarray  # uint8 [N, size, size, 3]
    kept: np.ndarray  # bool, per item
    digests: list[str]  # per item, empty for others
    sizes: list[tuple[int, int]]  # (width, height)
    ranges: Ranges


def decode(
    items: list[Item], image_size: int | None, title: str, found: Findings, ranges: Ranges | None = None
) -> Decoded:
    """The central square of each image, resized with antialiasing to `image_size` (None: the size that all have).

    ranges: what becomes 0..255 of values of more than 8 bits, from the training images; None: the range of all items,
    so that none is black by mistake. Faults of single files go to `found`. Raises ValueError before the decoding if
    memory is short, and at the second size of images without an `image_size`, unless `found` wants to be complete.
    """
    work = _Work(items, image_size, title, found)
    work.decode(range(len(items)), partial(read_image, size=image_size, ranges=ranges))
    deep = [image.deep for image in work.done if image.deep]
    ranges = range_of(deep) | (ranges or {})
    if later := [place for place, image in enumerate(work.done) if image.deep and not work.kept[place]]:
        work.decode(later, partial(read_image, size=image_size, ranges=ranges))
    work.report(ranges)
    return work.result(ranges)


@dataclass
class _Work:
    items: list[Item]
    image_size: int | None
    title: str
    found: Findings
    size: int = 0
    images: np.ndarray | None = None
    sizes: set = field(default_factory=set)

    def __post_init__(self):
        self.done: list[Image | None] = [None] * len(self.items)
        self.kept = np.zeros(len(self.items), bool)
        if self.image_size:
            self._allocate(self.image_size)

    def _allocate(self, size: int) -> None:
        """Room for all images. Raises ValueError if the memory is too small, before anything is decoded."""
        self.size, count, free = size, len(self.items), free_memory()
        needed = COPIES * count * 3 * size**2
        if free is not None and needed > free:
            gib, fitting = 2**30, fitting_size(free, 3 * COPIES * count)
            facts = {"needed": needed / gib, "free": free / gib, "fitting": fitting}
            self.found.add("memory", self.title, count=count, size=size, **facts)
            self.found.stop_unless_complete()
            return
        self.images = np.zeros((count, size, size, 3), np.uint8)

    def decode(self, places, read) -> None:
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            done = pool.map(read, [self.items[place] for place in places])
            bar = progress_bar(done, total=len(places), desc=f"decoding {Path(self.title).name}", unit="image")
            for count, (place, image) in enumerate(zip(places, bar, strict=True), 1):
                self._take(place, image)
                if count == SLOW_FILES:
                    hint_if_slow(self.title, sum(each.seconds for each in self.done if each), count, self.found)
        finally:
            pool.shutdown(cancel_futures=True)

    def _take(self, place: int, image: Image) -> None:
        self.done[place] = image
        if image.size is None:
            return
        if not self.size:
            self._allocate(min(image.size))
        if not self.image_size and image.size not in self.sizes:
            self.sizes.add(image.size)
            if len(self.sizes) > 1 or image.size[0] != image.size[1]:
                self._stop_at_several_sizes()
        pixels, image.pixels = image.pixels, None
        if pixels is not None and self.images is not None:
            self.images[place] = resized(pixels, self.size)  # of another size only for a complete list of findings
            self.kept[place] = True

    def _stop_at_several_sizes(self) -> None:
        if not self.found.complete:
            self._report_sizes()
            self.found.stop_unless_complete()

    def _report_sizes(self) -> None:
        listed = ", ".join(f"{width}x{height}" for width, height in sorted(self.sizes)[:3])
        listed += ", ..." * (len(self.sizes) > 3)
        self.found.add("sizes", self.title, sizes=listed, fitting=32)

    def report(self, ranges: Ranges) -> None:
        if len(self.sizes) > 1 or any(width != height for width, height in self.sizes):
            self._report_sizes()
        for (name, _), image in zip(self.items, self.done, strict=True):
            for fault, facts in image.faults.items():
                self.found.add(fault, name, **facts)
            if image.size and self.image_size and min(image.size) < self.image_size:
                self.found.add("enlarged", name, size=self.image_size)
            if image.deep and (known := ranges.get(image.deep[0])):
                self.found.add("deep", name, low=known[0], high=known[1])
                if image.deep[2] > known[1]:
                    self.found.add("clipped", name, most=image.deep[2], high=known[1])
        dark = [(name, image.coarse) for (name, _), image in zip(self.items, self.done, strict=True) if image.coarse]
        if dark and (most := max(value for _, value in dark)) <= DARK:
            for name, _ in dark:
                self.found.add("dark_colour", name, most=most)

    def result(self, ranges: Ranges) -> Decoded:
        images = self.images if self.images is not None else np.zeros((len(self.items), 0, 0, 3), np.uint8)
        images = images if self.kept.all() else images[self.kept]
        digests = [image.digest * bool(kept) for image, kept in zip(self.done, self.kept, strict=True)]
        sizes = [image.size for image, kept in zip(self.done, self.kept, strict=True) if kept]
        return Decoded(images, self.kept, digests, sizes, ranges)


def hint_if_slow(title: str, seconds: float, files: int, found: Findings) -> None:
    """The hint to copy the data set, if its files are slow to read."""
    if seconds / files > SLOW:
        found.hint("slow", title, milliseconds=1000 * seconds / files)

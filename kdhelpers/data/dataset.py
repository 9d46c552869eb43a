"""A loaded data set: uint8 images with labels in three splits, its statistics, hash and duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kdhelpers.artifacts import rehearsed_images


@dataclass(frozen=True)
class Split:
    images: Tensor  # uint8 [N, 3, H, W], made contiguous
    labels: Tensor  # int64 [N]

    def __post_init__(self):
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            given = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise ValueError(f"images: {given}; must be torch.uint8 [N, 3, H, W], pixels in 0..255")
        object.__setattr__(self, "images", self.images.contiguous())
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            given = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise ValueError(f"labels: {given}; must be torch.int64 [N], one per image ({len(self.images)})")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: Tensor) -> Split:
        return Split(self.images.index_select(0, index), self.labels.index_select(0, index))


@dataclass(frozen=True)
class Unlabelled:
    """Images without labels: their labels do not exist, or must not be used."""

    images: Tensor  # uint8 [N, 3, H, W], contiguous
    ids: list[str]  # one per image, in the same order
    source: str  # the argument that named them, see `take_unlabelled`
    note: str = ""  # how the images were resized, if they were

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Data:
    name: str
    train: Split
    val: Split
    test: Split
    class_names: list[str]
    superclasses: list[int] | None  # class -> superclass
    superclass_names: list[str] | None
    mean: tuple[float, float, float]  # per channel, of pixels in 0..1
    std: tuple[float, float, float]
    source: str = "memory"  # folder or library of the images
    notes: tuple[str, ...] = ()  # deviations of this copy from the official data set, and what its files have
    unlabelled: Unlabelled | None = None  # training images without labels
    pixel_ranges: dict = field(default_factory=dict)  # what became 0..255, of files of more than 8 bits per value
    test_split: str = ""  # how it was made, if the files have none
    leaked_files: int = 0  # of validation and test, which are copies of training files

    def __post_init__(self):
        for name in ("train", "val", "test"):
            labels = getattr(self, name).labels
            if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
                raise ValueError(
                    f"{name}: labels {labels.min()} to {labels.max()}; must lie in 0..{self.num_classes - 1}, "
                    f"for {self.num_classes} class_names"
                )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        return self.train.images.shape[-1]

    @cached_property
    def content_hash(self) -> str:
        """sha256 over the images and labels of all three splits, and the unlabelled images; 64 hex digits."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            digest.update(repr(tuple(split.images.shape)).encode())
            digest.update(split.images.numpy())
            digest.update(split.labels.numpy())
        if self.unlabelled is not None:
            digest.update(self.unlabelled.images.numpy())
        return digest.hexdigest()

    @cached_property
    def test_images_unlabelled(self) -> int:
        """Number of test images among the unlabelled ones, pixel for pixel; above 0, training is transductive."""
        return self._unlabelled_of(self.test)

    @cached_property
    def held_out_images_unlabelled(self) -> int:
        """Number of validation images among the unlabelled ones."""
        return self._unlabelled_of(self.val)

    def _unlabelled_of(self, split: Split) -> int:
        return count_duplicates(split, [self.unlabelled]) if self.unlabelled is not None else 0

    def card(self) -> dict:
        """The data card: source, counts, sizes, statistics, hash, and test images that also occur in training."""
        return {
            "name": self.name,
            "source": self.source,
            "image_size": self.image_size,
            "classes": self.num_classes,
            "superclasses": len(self.superclass_names or []),
            **{split: len(getattr(self, split)) for split in ("train", "val", "test")},
            **({"unlabelled": len(self.unlabelled)} if self.unlabelled is not None else {}),
            "mean": list(self.mean),
            "std": list(self.std),
            **({"test_split": self.test_split} if self.test_split else {}),
            "hash": self.content_hash,
            "test_images_also_in_train_or_val": count_duplicates(self.test, [self.train, self.val]),
            "notes": list(self.notes),
        }


def count_duplicates(split: Split, others: Sequence[Split]) -> int:
    """Number of images of `split` that occur, pixel for pixel, in one of the `others`."""
    digests = {digest for other in others for digest in image_digests(other.images)}
    return sum(digest in digests for digest in image_digests(split.images))


def image_digests(images: Tensor) -> list[bytes]:
    return [hashlib.sha256(image).digest() for image in images.numpy()]


def fingerprint(split: Split) -> str:
    """sha256 of the set of (image, label) pairs, independent of their order: identifies a split's content."""
    pairs = zip(image_digests(split.images), split.labels.tolist(), strict=True)
    return hashlib.sha256(b"".join(sorted(digest + bytes([label]) for digest, label in pairs))).hexdigest()


def stratified(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Divide the indices of `labels` [N] into (the rest, `count` chosen ones), proportional per class, both ascending.

    A pure function of its arguments, the same on every version. Exactly `count` are chosen, or fewer if a class would
    keep no sample in the rest.
    """
    classes, sizes = np.unique(labels.numpy(), return_counts=True)
    share = sizes * count / len(labels)
    quota = np.floor(share).astype(int)
    while (missing := count - quota.sum()) > 0:  # repeats if small classes cannot give their share
        by_remainder = np.argsort(quota - share, kind="stable")
        by_remainder = by_remainder[(quota + 1 < sizes)[by_remainder]]
        if not len(by_remainder):
            break
        quota[by_remainder[:missing]] += 1
    random = np.random.RandomState(seed)  # numpy guarantees its stream; torch and default_rng do not
    chosen = np.zeros(len(labels), bool)
    for label, number in zip(classes, quota, strict=True):
        members = np.flatnonzero(labels.numpy() == label)
        chosen[random.permutation(members)[:number]] = True
    return torch.from_numpy(np.flatnonzero(~chosen)), torch.from_numpy(np.flatnonzero(chosen))


def few_in_rehearsal(split: Split) -> tuple[Split, Tensor]:
    """All images, in a rehearsal a few of each class, and their places in the split."""
    count = rehearsed_images(len(split), len(split.labels.unique()))
    if count == len(split):
        return split, torch.arange(count)
    few = stratified(split.labels, count, seed=0)[1]
    return split.select(few), few


def split_validation(train: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """(the remaining training images, a stratified `fraction` for validation); 0 leaves validation empty.

    Raises ValueError for a fraction outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"val_fraction = {fraction}: is out of range; choose a number in [0, 1), such as 0.1")
    rest, chosen = stratified(train.labels, round(fraction * len(train)), seed)
    return (train.select(rest) if fraction else train), train.select(chosen)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 [N, 3, H, W] as pixels in 0..1, from exact histograms."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.unbind(1):
        counts = torch.zeros(256, dtype=torch.float64)
        for block in channel.split(4096):  # bincount works on int64 copies: keep them small
            counts += torch.bincount(block.flatten(), minlength=256)
        share = counts / counts.sum()
        mean = (share * values).sum()
        means.append(mean.item())
        deviations.append((share * (values - mean) ** 2).sum().sqrt().clamp(min=1e-3).item())
    return tuple(means), tuple(deviations)

"""Reading a data set of class folders of encoded images (PNG, JPEG, WebP, ...), see `folders` for the layouts."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from kdhelpers.data.dataset import Split, stratified
from kdhelpers.data.findings import Findings, shown
from kdhelpers.data.readers.arrays import Raw, checked_split, official_splits
from kdhelpers.data.readers.decoded_cache import Built, cached
from kdhelpers.data.readers.decoding import Item, decode
from kdhelpers.data.readers.folders import Classes, find_class_folders, find_classes_alone

TEST_SHARE, TEST_SEED = 0.2, 0  # of images without splits; one test split for all runs, so that they can be compared
SHARE_TEXT = "a fifth"


def read_class_folders(
    folder: Path, image_size: int | None, cache: Path, words: dict[str, str], found: Findings
) -> Raw | None:
    """Class folders with splits; the classes are those of train in natural order, renamed by `words`.

    Raises ValueError at serious findings, unless `found` wants to be complete: then unreadable images are left out.
    """
    splits = find_class_folders(folder, found)
    if splits is None:
        return None
    found.stop_unless_complete()
    built = _decoded(folder, splits, image_size, cache, found, _no_split)
    names = [words.get(name, name) for name in splits["train"]]
    source = f"{shown(folder)}/<split>/<class>/*"
    return Raw(official_splits(built.splits, folder), names, source, pixel_ranges=built.ranges)


def read_classes_alone(folder: Path, image_size: int | None, cache: Path, found: Findings) -> Raw | None:
    """Class folders without splits: `TEST_SHARE` of each class, by `TEST_SEED`, is the test split."""
    classes = find_classes_alone(folder, found)
    found.stop_unless_complete()
    if not classes:
        return None
    built = _decoded(folder, {"train": classes}, image_size, cache, found, _test_split)
    made = f"{SHARE_TEXT} of the images of each class, by seed {TEST_SEED}"
    source = f"{shown(folder)}/<class>/*"
    return Raw(built.splits, list(classes), source, pixel_ranges=built.ranges, test_split=made)


def _decoded(
    folder: Path,
    splits: dict[str, Classes],
    image_size: int | None,
    cache: Path,
    found: Findings,
    divide: Callable[..., dict[str, Split]],
) -> Built:
    """The splits; `divide` makes two of a train split alone."""
    paths = {name: [path for images in classes.values() for path in images] for name, classes in splits.items()}
    labels = {name: _labels(map(len, classes.values())) for name, classes in splits.items()}
    every = [path for part in paths.values() for path in part]

    def build(own: Findings) -> Built:
        items: list[Item] = [(shown(path), path) for path in every]
        decoded = decode(items, image_size, shown(folder), own)
        report_copies([name for name, _ in items], decoded.digests, labels, own)
        own.stop_unless_complete()
        parts = cut(decoded.images, decoded.kept, labels)
        if not all(len(of_split) for _, of_split in parts.values()):
            own.stop()  # no image of a split can be read
        built = {name: checked_split(*part, len(splits["train"]), folder / name) for name, part in parts.items()}
        digests = dict(zip(every, decoded.digests, strict=True))
        if len(built) == 1:
            read = [digest for digest, kept in zip(decoded.digests, decoded.kept, strict=True) if kept]
            built = divide(folder, built["train"], read, list(splits["train"]), own)
        return Built(built, decoded.ranges, digests)

    counts = {name: {each: len(images) for each, images in classes.items()} for name, classes in splits.items()}
    return cached(cache, folder, every, image_size, found, build, len(splits["train"]), repr(counts))


def _no_split(folder: Path, whole: Split, *_) -> dict[str, Split]:
    """For a complete list of findings, when the test split is missing."""
    return {"train": whole, "test": whole.select(torch.empty(0, dtype=torch.int64))}


def _test_split(folder: Path, whole: Split, digests: list[str], names: list[str], found: Findings) -> dict[str, Split]:
    """Train and test. Copies of a file stay together: in both splits they would be leakage."""
    first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
    firsts = torch.tensor(sorted(first.values()))
    of_class = whole.labels[firsts]
    chosen = stratified(of_class, round(TEST_SHARE * len(firsts)), TEST_SEED)[1]
    tests = {digests[place] for place in firsts[chosen].tolist()}
    tested = torch.tensor([digest in tests for digest in digests])
    if tested.any():
        found.add("split_made", folder, share=SHARE_TEXT, seed=TEST_SEED, count=int(tested.sum()))
    else:
        found.add("few_to_split", folder, count=len(whole))
    for label in sorted(set(whole.labels.tolist()) - set(whole.labels[tested].tolist())):
        found.add("not_in_test", folder, name=names[label])
    found.stop_unless_complete()
    return {"train": whole.select((~tested).nonzero()[:, 0]), "test": whole.select(tested.nonzero()[:, 0])}


def _labels(counts: Iterable[int]) -> np.ndarray:
    counts = list(counts)
    return np.repeat(np.arange(len(counts)), counts)


def cut(images: np.ndarray, kept: np.ndarray, labels: dict[str, np.ndarray]) -> dict[str, tuple]:
    """Split -> (images, labels) of what was `kept`, of items that come split by split."""
    parts, start, place = {}, 0, 0
    for name, of_split in labels.items():
        mask = kept[start : start + len(of_split)]
        parts[name] = images[place : place + mask.sum()], of_split[mask]
        start, place = start + len(of_split), place + mask.sum()
    return parts


def report_copies(names: list[str], digests: list[str], labels: dict[str, np.ndarray], found: Findings) -> None:
    """Findings of the same file in train and another split, which is leakage, and in two classes."""
    split_of = [name for name, of_split in labels.items() for _ in of_split]
    label_of = np.concatenate(list(labels.values())).tolist()
    of_digest: dict[str, list[int]] = {}
    for place, digest in enumerate(digests):
        of_digest.setdefault(digest, []).append(place)
    for group in (group for digest, group in of_digest.items() if digest and len(group) > 1):
        other = next((place for place in group if label_of[place] != label_of[group[0]]), None)
        if other is not None:
            found.add("two_labels", f"{names[group[0]]} and {names[other]}")
        for place in group:
            if split_of[place] != "train" and split_of[group[0]] == "train":
                found.add("leak", names[place], split=split_of[place])

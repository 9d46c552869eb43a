"""What the images and labels of a data set show once they are read: the last part of `check_data`."""

import torch

from kdhelpers.data.dataset import count_duplicates
from kdhelpers.data.findings import Findings
from kdhelpers.data.readers.arrays import Raw

DARK = 31  # of 255
UNEVEN = 10  # times as many training images as the smallest class


def check_content(raw: Raw, found: Findings) -> None:
    """Copies between the splits, images of one colour, dark images, classes of very different size."""
    train = raw.splits["train"]
    for name, split in raw.splits.items():
        if not len(split):
            continue
        if name != "train" and (count := count_duplicates(split, [train])):
            found.add("equal_pixels", raw.source, count=count, whole=len(split), split=name)
        flat = split.images.flatten(1)
        if count := int((flat.amax(1) == flat.amin(1)).sum()):
            found.add("one_colour", raw.source, count=count, split=name)
        if (most := int(flat.max())) <= DARK:
            found.add("dark", raw.source, most=most, split=name)
    counts = torch.bincount(train.labels, minlength=len(raw.class_names)).tolist()
    fewest, most = min(filter(None, counts), default=0), max(counts)
    if most > UNEVEN * fewest:
        small, large = (raw.class_names[counts.index(count)] for count in (fewest, most))
        found.add("uneven", raw.source, small=small, fewest=fewest, large=large, most=most)

"""Reading a data set from arrays: torchvision's CIFAR pickles and `.npz` files. Without files a reader returns None."""

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch.nn import functional as F

from kdhelpers.data.dataset import Split
from kdhelpers.data.findings import Findings, shown
from kdhelpers.data.readers.folders import natural
from kdhelpers.data.readers.memory import free_memory
from kdhelpers.data.readers.safe_pickle import restricted_load
from kdhelpers.messages import short

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Raw:
    """A data set as read from its source, before the validation split and the statistics."""

    splits: dict[str, Split]  # "train", "test" and optionally "val"
    class_names: list[str]
    source: str
    superclasses: list[int] | None = None
    superclass_names: list[str] | None = None
    verified: bool = False  # the files have the official md5
    pixel_ranges: dict = field(default_factory=dict)  # what became 0..255, of values of more than 8 bits
    test_split: str = ""  # how it was made, if the files have none

    def __post_init__(self):
        if missing := {"train", "test"} - set(self.splits):
            raise ValueError(f"{self.source}: has no split {' and no '.join(sorted(missing))}; add it")


@dataclass(frozen=True)
class PickleLayout:
    """torchvision's files of a CIFAR data set: name -> md5."""

    folder: str
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    labels: str  # key of the labels in a batch
    names: str  # key of the class names in the meta file
    superclass_labels: str | None = None
    superclass_names: str | None = None


def read_pickles(root: Path, layout: PickleLayout) -> Raw | None:
    """torchvision's layout of CIFAR, every md5 checked. Raises ValueError for a damaged file, FileNotFoundError for a
    missing one; returns None if the whole folder is missing."""
    folder = root / layout.folder
    if not folder.is_dir():
        return None
    [(meta_file, meta_md5)] = layout.meta.items()
    meta = restricted_load(folder / meta_file, meta_md5)
    train = [restricted_load(folder / file, md5) for file, md5 in layout.train.items()]
    test = [restricted_load(folder / file, md5) for file, md5 in layout.test.items()]
    splits = {
        name: _stack(batches, layout.labels, len(meta[layout.names]), folder / name)
        for name, batches in (("train", train), ("test", test))
    }
    superclasses = None
    if layout.superclass_labels:
        coarse = [label for batch in train for label in batch[layout.superclass_labels]]
        of_class = dict(zip(splits["train"].labels.tolist(), coarse, strict=True))
        superclasses = [of_class[label] for label in sorted(of_class)]
    superclass_names = list(meta[layout.superclass_names]) if layout.superclass_names else None
    source = f"{folder} (torchvision's pickles, md5 checked)"
    return Raw(splits, list(meta[layout.names]), source, superclasses, superclass_names, verified=True)


def _stack(batches: list[dict], labels: str, classes: int, where: Path) -> Split:
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return checked_split(images, np.concatenate([batch[labels] for batch in batches]), classes, where)


def read_npz(folder: Path, found: Findings) -> Raw | None:
    """`{train,test}.npz`, and optionally `val.npz`, with `images` uint8 [N, H, W, 3], `labels` integer [N] and, in
    train.npz, `class_names`. Raises ValueError for other content, with the file's name."""
    if not (folder / "train.npz").is_file():
        return None
    files = {name: folder / f"{name}.npz" for name in ("train", "val", "test") if (folder / f"{name}.npz").is_file()}
    arrays, splits = {}, {}
    for name, path in files.items():
        with found.gather():
            arrays[name] = _load_npz(path)
    if len(arrays) < len(files):
        found.stop()
    _number_texts(arrays)
    names = arrays["train"].get("class_names")
    names = _numbered(arrays["train"]["labels"], files["train"]) if names is None else names
    for name, part in arrays.items():
        with found.gather():
            splits[name] = checked_split(part["images"], part["labels"], len(names), files[name])
    if len(splits) < len(files):
        found.stop()
    return Raw(official_splits(splits, folder), [shown(str(name)) for name in names], f"{folder}/*.npz")


def _number_texts(arrays: dict[str, dict[str, np.ndarray]]) -> None:
    """Labels that are texts become their places among the class names: those of train, if it has no others."""
    train = arrays["train"]
    if train["labels"].dtype.kind != "U":
        return
    names = train.setdefault("class_names", np.array(sorted(set(train["labels"].ravel().tolist()), key=natural)))
    places = {name: place for place, name in enumerate(names.tolist())}
    for part in arrays.values():  # -1 is out of range, and refused
        part["labels"] = np.array([places.get(text, -1) for text in part["labels"].ravel().tolist()], np.int64)


def dataset_from_arrays(
    *,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray] | None = None,
    class_names: Sequence[str] | None = None,
) -> Raw:
    """What the `read` of a `Source` returns: each split is (images uint8 [N, H, W, 3], labels integer [N]).

    Without `class_names` the classes are "0", "1", ... Without `val` a share of `train` is held out. Raises ValueError
    for another type or shape, and for labels out of range.
    """
    arrays = {"train": train, "test": test} | ({"val": val} if val is not None else {})
    names = _numbered(np.asarray(train[1]), "train") if class_names is None else [str(name) for name in class_names]
    return Raw({name: checked_split(*part, len(names), name) for name, part in arrays.items()}, names, "arrays")


def _numbered(labels: np.ndarray, where: Path | str) -> list[str]:
    """Class names "0", "1", ... of integer labels. Raises ValueError if a class in 0..highest has no image."""
    highest = labels.max(initial=0) if np.issubdtype(labels.dtype, np.integer) else 0
    if (classes := len(np.unique(labels))) <= highest:
        raise ValueError(f"{where}: labels have {classes} classes up to {highest}; renumber 0..C-1 or save class_names")
    return [str(label) for label in range(highest + 1)]


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = load_arrays(path, ("images", "labels", "class_names"))
    except Exception as error:  # a damaged file may fail in any way: BadZipFile, zlib.error, struct.error, ...
        if "Object arrays" in str(error):
            raise ValueError(f"{path}: {_objects(path)}") from error
        raise ValueError(f"{path}: is not a readable .npz ({short(error, 200)}); make it with numpy.savez") from error
    if missing := {"images", "labels"} - set(arrays):
        names = " and no ".join(sorted(missing))
        raise ValueError(f"{path}: has no array {names}; save images [N, H, W, 3] and labels [N]")
    if (names := arrays.get("class_names")) is not None and names.ndim != 1:
        raise ValueError(f"{path}: class_names are of shape {list(names.shape)}; save a list of texts")
    return arrays


def load_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, or those of these names that it has.

    Raises ValueError, before anything is inflated, for arrays that do not fit into the free memory and for one that
    declares more values than it holds; any other error for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if names is None or member.filename[:-4] in names]
        needed, free = sum(member.file_size for member in members), free_memory()
        if free is not None and needed > free:
            raise ValueError(f"its arrays need {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free")
        for member in members:
            with archive.open(member) as file:
                _check_header(file, member)
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays if names is None or key in names}


def _check_header(file: IO[bytes], member: zipfile.ZipInfo) -> None:
    version = np.lib.format.read_magic(file)
    shape, _, dtype = HEADERS[version](file)
    values = math.prod(shape) * max(dtype.itemsize, 1)  # values without a byte would cost nothing and have no end
    if not dtype.hasobject and values > member.file_size:
        raise ValueError(f"{member.filename} declares more values than it holds")


def _objects(path: Path) -> str:
    """Which array of the file holds Python objects, and the remedy; the objects themselves are not loaded."""
    with zipfile.ZipFile(path) as archive:
        for key in ("images", "labels", "class_names"):
            if f"{key}.npy" in archive.namelist() and b"'|O'" in archive.read(f"{key}.npy")[:200]:
                break
    if key == "images":
        return (
            "images are an object array, as of images of several sizes; resize them to one size, or use class folders"
        )
    return f"{key} are Python objects; save them as an array of whole numbers or of texts (dtype=str)"


def checked_split(images: np.ndarray, labels: np.ndarray, classes: int, where: Path | str) -> Split:
    """Arrays [N, H, W, 3] and [N] -> Split. Raises ValueError for another type or shape, NaN, labels out of range."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"{where}: images are {list(images.shape)}; save [N, H, W, 3] (repeat grey three times)")
    if np.issubdtype(images.dtype, np.floating) and np.isnan(images).any():
        first = int(np.isnan(images).any(axis=(1, 2, 3)).argmax())
        raise ValueError(f"{where}: image {first} holds NaN; repair or leave out such images and save uint8 in 0..255")
    if images.dtype != np.uint8:
        raise ValueError(f"{where}: images are {images.dtype}; save them as uint8 in 0..255")
    if labels.shape != (len(images),):
        raise ValueError(
            f"{where}: {len(images)} images, labels of shape {list(labels.shape)}; give one label per image"
        )
    if len(labels) == 0:
        raise ValueError(f"{where}: has no images; add some")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{where}: labels are {labels.dtype}; save them as integers in 0..{classes - 1}")
    if labels.min() < 0 or labels.max() >= classes:
        wrong = int(((labels < 0) | (labels >= classes)).argmax())
        raise ValueError(f"{where}: label {labels[wrong]} of image {wrong} is out of range; use 0..{classes - 1}")
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return Split(pixels, torch.from_numpy(labels.astype(np.int64)))


def official_splits(splits: dict[str, Split], where: Path) -> dict[str, Split]:
    """Name the splits train, test and optionally val; without "test", "val" is the test split."""
    if "test" in splits:
        return splits
    if "val" not in splits:
        raise ValueError(f"{where}: has train but neither test nor val; add a test split")
    return {"train": splits["train"], "test": splits["val"]}


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [N, 3, H, W] -> [N, 3, size, size]: the central square, resized bilinearly with antialiasing."""
    height, width = images.shape[2:]
    if height == width == size:
        return images
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, :, top : top + side, left : left + side]
    blocks = (F.interpolate(block, size=(size, size), mode="bilinear", antialias=True) for block in square.split(1024))
    return torch.cat(list(blocks))

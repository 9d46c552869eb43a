"""Images without labels: of files and folders that have none, or a data set's own, whose labels then stay behind."""

import re
import reprlib
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from kdhelpers import artifacts
from kdhelpers.data.dataset import Split, Unlabelled, stratified
from kdhelpers.data.readers.arrays import resize
from kdhelpers.data.readers.image_files import EXTENSIONS, decode, is_image
from kdhelpers.data.readers.safe_pickle import restricted_load

LONGEST = 1000
SOURCES = (
    "test, train:16000 (so many training images), train:-4000 (all but so many), a pickle {data, ids}, or a folder"
)


def check_unlabelled(source: str) -> None:
    """ValueError unless `source` is "test", "train:<count>", or a file or folder that exists."""
    if source == "test" or re.fullmatch(r"train:-?[1-9]\d*", source):
        return
    try:
        _locate(source)
    except ValueError as error:
        raise ValueError(f"unlabelled = {source}: {error}; known: {SOURCES}") from None


def take_unlabelled(source: str, train: Split, test: Split, seed: int, image_size: int) -> tuple[Split, Unlabelled]:
    """(the labelled training images, the unlabelled ones) that `source`, as `check_unlabelled` has it, asks for.

    "train:<count>" takes so many of `train` away (a negative count: all but so many), stratified and the same for the
    same `seed`; "test" takes the test images: transductive, as these are trained on before they are tested on. Raises
    ValueError where a class would be left without labelled image, or all would keep theirs, and as `read_unlabelled`.
    """
    if source == "test":
        return train, Unlabelled(test.images, _numbered(len(test)), source)
    if not source.startswith("train:"):
        return train, read_unlabelled(source, image_size)
    count = len(train) - labelled_count(source, len(train))
    most = len(train) - len(train.labels.unique())
    if not 1 <= count <= most:
        raise ValueError(
            f"unlabelled = {source}: of {len(train):,} training images 1 to {most:,} can be set aside, as every class "
            "keeps a labelled one; take another count"
        )
    labelled, chosen = stratified(train.labels, count, seed)
    images = train.images.index_select(0, chosen)
    return train.select(labelled), Unlabelled(images, _numbered(len(chosen)), source)


def labelled_count(source: str | None, whole: int) -> int:
    """How many of `whole` training images keep their labels where `source` is "train:<count>"; else all do."""
    if not (source or "").startswith("train:"):
        return whole
    count = int(source.removeprefix("train:"))
    return whole - count if count > 0 else -count


def _shown(given: object) -> str:
    try:
        return reprlib.repr(given)
    except ValueError:  # Python does not print a number of thousands of digits
        return "(very long)"


def read_unlabelled(source: str | Path, image_size: int | None = None) -> Unlabelled:
    """Read a pickled {data: uint8 [N, H, W, 3] or [N, 3 * S * S] (channel by channel, as in CIFAR's files), ids: [N]},
    or a folder of images, whose ids are the files' names without extension.

    A relative path is looked for here, then under the data root. Images are cut to their central square and resized to
    `image_size` (None: the images' own). Nothing else of a pickle is looked at; it is read without running any of its
    code. Raises ValueError for a path that does not exist, other content, and ids that are not one per image.
    """
    try:
        path = _locate(str(source))
    except ValueError as error:
        raise ValueError(f"{source or 'nothing'}: {error}") from None
    if not path.is_dir() and not path.is_file():
        raise ValueError(f"{path}: is neither a file nor a folder")
    images, ids = _read_folder(path, image_size) if path.is_dir() else _read_pickle(path)
    if len(ids) != len(images) or not len(ids):
        raise ValueError(f"{path}: {len(images)} images but {len(ids)} ids; give one id per image, and at least one")
    ids = [_text(value, path) for value in ids]
    if len(set(ids)) < len(ids):
        [(twice, times)] = Counter(ids).most_common(1)
        raise ValueError(f"{path}: id {twice} stands there {times} times; give every image an id of its own")
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return Unlabelled(resize(pixels, image_size or min(pixels.shape[2:])), ids, str(source))


def _text(given: object, path: Path) -> str:
    """An id as it is written into a table, where it must be read again as it was."""
    text = ""
    if isinstance(given, (str, bytes)):
        text = given.decode("utf-8", "replace") if isinstance(given, bytes) else given
    elif isinstance(given, (int, np.integer)) and not isinstance(given, bool) and int(given).bit_length() < 3 * LONGEST:
        text = str(given)
    if not text or not text.isprintable() or "\ufffd" in text or len(text) > LONGEST:
        raise ValueError(
            f"{path}: id {_shown(given)} is {type(given).__name__}; ids are whole numbers or printable texts of "
            f"1 to {LONGEST} characters"
        )
    return text


def _locate(source: str) -> Path:
    for path in (Path(source).expanduser(), artifacts.data_root() / source):
        if source and path.exists():
            return path
    raise ValueError(f"no such file or folder here or in {artifacts.data_root()}")


def _numbered(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _read_pickle(path: Path) -> tuple[np.ndarray, list]:
    content = restricted_load(path)
    if isinstance(content, dict):  # keys are bytes in some files of CIFAR's kind
        content = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    if not isinstance(content, dict) or not {"data", "ids"} <= content.keys():
        found = reprlib.repr(list(content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: holds {found}; a dictionary with data and ids is needed")
    ids = content["ids"]
    if not isinstance(ids, (list, tuple, np.ndarray)):
        raise ValueError(f"{path}: ids is {type(ids).__name__}; must be a list, a tuple or an array")
    return _shaped(content["data"], path), ids.ravel().tolist() if isinstance(ids, np.ndarray) else list(ids)


def _shaped(images: object, path: Path) -> np.ndarray:
    """uint8 [N, H, W, 3] of that or of [N, 3 * S * S]."""
    found = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
    if isinstance(images, np.ndarray) and images.ndim == 2:
        side = round((images.shape[1] / 3) ** 0.5)
        images = images.reshape(-1, 3, side, side).transpose(0, 2, 3, 1) if images.shape[1] == 3 * side**2 > 0 else None
    right = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3
    if not right or not all(images.shape[1:]):
        raise ValueError(f"{path}: data is {found}; must be an array uint8 [N, H, W, 3] or [N, 3072]")
    return images


def _read_folder(folder: Path, image_size: int | None) -> tuple[np.ndarray, list]:
    there = [path for path in folder.iterdir() if not path.name.startswith(".")]
    files = sorted(filter(is_image, there), key=_natural)
    if files and (others := sorted(path.name for path in set(there) - set(files))):
        named = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
        warnings.warn(
            f"{folder}: {len(others)} entries are no images of known kinds and are passed over: {named}", stacklevel=4
        )
    if not files:
        raise ValueError(
            f"{folder}: no images in it; put them there without class folders ({', '.join(sorted(EXTENSIONS))})"
        )
    return decode([(str(path), path) for path in files], image_size, folder.name), [path.stem for path in files]


def _natural(path: Path) -> list:
    """10.png behind 9.png; 01.png and 1.png by name."""
    parts = re.split(r"(\d+)", path.stem)  # text, number, text, ...
    return [[int(part) if place % 2 else part for place, part in enumerate(parts)], path.name]

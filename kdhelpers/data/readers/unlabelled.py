"""Images without labels: from files and folders, or from a data set, without its labels."""

import re
import reprlib
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kdhelpers import artifacts
from kdhelpers.data.dataset import Split, Unlabelled, stratified
from kdhelpers.data.findings import Findings, shown
from kdhelpers.data.readers.arrays import resize
from kdhelpers.data.readers.decoding import decode
from kdhelpers.data.readers.folders import EXTENSIONS, is_image, natural
from kdhelpers.data.readers.image import Ranges
from kdhelpers.data.readers.safe_pickle import restricted_load

LONGEST = 1000
SOURCES = "test, train:16000 (16,000 training images), train:-4000 (all except 4,000), a pickle {data, ids}, a folder"


def check_unlabelled(source: str) -> None:
    """ValueError unless `source` is "test", "train:<count>", or a file or folder that exists."""
    if source == "test" or re.fullmatch(r"train:-?[1-9]\d*", source):
        return
    try:
        _locate(source)
    except ValueError as error:
        raise ValueError(f"unlabelled = {source}: {error}; known: {SOURCES}") from None


def take_unlabelled(
    source: str, train: Split, test: Split, seed: int, ranges: Ranges | None = None
) -> tuple[Split, Unlabelled]:
    """(labelled training images, unlabelled images) by `source`, see `check_unlabelled`.

    "train:<count>" takes `count` images from `train` (negative: all except that many), stratified and determined by
    `seed`. "test" takes the test images: transductive, because training uses them before the test. Raises ValueError if
    a class would keep no labelled image, if no image would lose its label, and as `read_unlabelled`.
    """
    if source == "test":
        return train, Unlabelled(test.images, _numbered(len(test)), source)
    if not source.startswith("train:"):
        return train, read_unlabelled(source, train.images.shape[-1], ranges or None)
    count = len(train) - labelled_count(source, len(train))
    most = len(train) - len(train.labels.unique())
    if not 1 <= count <= most:
        raise ValueError(
            f"unlabelled = {source}: of {len(train):,} training images 1 to {most:,} can lose their labels "
            "(every class keeps one); take another count"
        )
    labelled, chosen = stratified(train.labels, count, seed)
    images = train.images.index_select(0, chosen)
    return train.select(labelled), Unlabelled(images, _numbered(len(chosen)), source)


def labelled_count(source: str | None, whole: int) -> int:
    """How many of `whole` training images keep their labels: all, unless `source` is "train:<count>"."""
    if not (source or "").startswith("train:"):
        return whole
    count = int(source.removeprefix("train:"))
    return whole - count if count > 0 else -count


def _repr(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print thousands of digits
        return "(very long)"


def read_unlabelled(
    source: str | Path | Sequence[str | Path], image_size: int | None = None, ranges: Ranges | None = None
) -> Unlabelled:
    """Read a pickled {data: uint8 [N, H, W, 3] or [N, 3 * S * S] (channel by channel, as in CIFAR's files), ids: [N]},
    a folder of images, whose ids are the files' names without extension, or image files, whose ids are their paths.

    A relative path is searched in the working folder, then under the data root. The central square of each image is
    resized to `image_size` (None: not resized). ranges: what becomes 0..255 of images of more than 8 bits per value, as
    in the training images. Other entries of a pickle are ignored; none of its code runs. Raises ValueError for a path
    that does not exist, other content, and ids that are not unique or not one per image.
    """
    sources = [str(one) for one in ([source] if isinstance(source, (str, Path)) else source)]
    paths = [_existing(one) for one in sources]
    path = paths[0]
    if len(paths) > 1 or is_image(path):
        images, ids, sizes = _read_files(paths, sources, image_size, ranges)
    else:
        images, ids, sizes = _read_folder(path, image_size, ranges) if path.is_dir() else _read_pickle(path)
    if len(ids) != len(images) or not len(ids):
        raise ValueError(f"{path}: {len(images)} images but {len(ids)} ids; give one id per image, and at least one")
    ids = [_text(value, path) for value in ids]
    if len(set(ids)) < len(ids):
        [(repeated, times)] = Counter(ids).most_common(1)
        raise ValueError(f"{path}: id {repeated} occurs {times} times; give every image a unique id")
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    pixels = resize(pixels, image_size or min(pixels.shape[2:]))
    return Unlabelled(pixels, ids, " ".join(sources), _resizing(sizes, pixels.shape[-1]))


def _existing(source: str) -> Path:
    try:
        path = _locate(source)
    except ValueError as error:
        raise ValueError(f"{source or 'nothing'}: {error}; correct the path") from None
    if not path.is_dir() and not path.is_file():
        raise ValueError(f"{path}: is neither a file nor a folder; name one")
    return path


def _resizing(sizes: list[tuple[int, int]], side: int) -> str:
    """What was done to the images that are not squares of this side, or an empty text."""
    others = [size for size in sizes if size != (side, side)]
    listed = sorted(set(others))
    text = ", ".join(f"{width}x{height}" for width, height in listed[:3]) + ", ..." * (len(listed) > 3)
    one = f"{len(others)} image{'s' * (len(others) > 1)}"
    return f"{one} of {text} pixels: the central square was resized to {side}x{side}" if others else ""


def _text(value: object, path: Path) -> str:
    """An id as text that a table preserves."""
    text = ""
    if isinstance(value, (str, bytes)):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    elif isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value).bit_length() < 3 * LONGEST:
        text = str(value)
    if not text or not text.isprintable() or "\ufffd" in text or len(text) > LONGEST:
        raise ValueError(
            f"{path}: id {_repr(value)} is {type(value).__name__}; ids are whole numbers or printable texts of "
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


def _read_pickle(path: Path) -> tuple[np.ndarray, list, list]:
    """(images, ids, sizes)."""
    content = restricted_load(path)
    if isinstance(content, dict):  # keys are bytes in files of Python 2
        content = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    if not isinstance(content, dict) or not {"data", "ids"} <= content.keys():
        given = reprlib.repr(list(content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: contains {given}; save a dictionary with data and ids")
    ids = content["ids"]
    if not isinstance(ids, (list, tuple, np.ndarray)):
        raise ValueError(f"{path}: ids is {type(ids).__name__}; must be a list, a tuple or an array")
    images = _as_images(content["data"], path)
    sizes = [(images.shape[2], images.shape[1])] * len(images)
    return images, ids.ravel().tolist() if isinstance(ids, np.ndarray) else list(ids), sizes


def _as_images(images: object, path: Path) -> np.ndarray:
    """uint8 [N, H, W, 3] from [N, H, W, 3] or [N, 3 * S * S]."""
    given = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
    if isinstance(images, np.ndarray) and images.ndim == 2:
        side = round((images.shape[1] / 3) ** 0.5)
        images = images.reshape(-1, 3, side, side).transpose(0, 2, 3, 1) if images.shape[1] == 3 * side**2 > 0 else None
    valid = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3
    if not valid or not all(images.shape[1:]):
        raise ValueError(f"{path}: data is {given}; must be an array uint8 [N, H, W, 3] or [N, 3072]")
    return images


def _read_files(
    paths: list[Path], names: list[str], image_size: int | None, ranges: Ranges | None
) -> tuple[np.ndarray, list, list]:
    """(images, ids, sizes) of image files; the ids are `names`. Raises ValueError for a file of another kind."""
    if other := next((path for path in paths if not is_image(path)), None):
        kinds = ", ".join(sorted(EXTENSIONS))
        raise ValueError(f"{other}: is not an image file; give image files ({kinds}), or one folder, or one pickle")
    images, sizes = _decoded(paths, image_size, paths[0].name if len(paths) == 1 else f"{len(paths)} images", ranges)
    return images, [shown(name) for name in names], sizes


def _decoded(
    paths: list[Path], image_size: int | None, title: str, ranges: Ranges | None
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """(images, sizes). Raises ValueError for an unreadable image; what else is odd is printed."""
    found = Findings()
    decoded = decode([(shown(path), path) for path in paths], image_size, shown(title), found, ranges)
    found.stop_unless_complete()
    found.say()
    return decoded.images, decoded.sizes


def _read_folder(folder: Path, image_size: int | None, ranges: Ranges | None) -> tuple[np.ndarray, list, list]:
    """(images, ids, sizes)."""
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    files = sorted(filter(is_image, entries), key=lambda path: natural(path.stem))
    if files and (others := sorted(path.name for path in set(entries) - set(files))):
        named = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
        warnings.warn(f"{folder}: {len(others)} entries are not image files and are ignored: {named}", stacklevel=4)
    if not files:
        raise ValueError(f"{folder}: has no images; add some without class folders ({', '.join(sorted(EXTENSIONS))})")
    images, sizes = _decoded(files, image_size, folder.name, ranges)
    return images, [shown(path.stem) for path in files], sizes

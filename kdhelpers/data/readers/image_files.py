"""Reading a data set of encoded images (PNG, JPEG, WebP): class folders and Hugging Face parquet files.

Images are decoded once, in parallel, into the data root's `.cache`. The key is a hash of the files' contents: a
replaced image is decoded again, a copied folder is not.
"""

import hashlib
import json
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from kdhelpers import artifacts
from kdhelpers.data.dataset import Split
from kdhelpers.data.readers.arrays import Raw, checked_split, official_splits
from kdhelpers.display.progress import progress_bar

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
DECODING = 1  # version of `decode`: raise it if its pixels change, so that old caches are not used
Item = tuple[str, Path | bytes]  # (name in errors, path or content of an image)


def read_class_folders(folder: Path, image_size: int | None, cache: Path, words: dict[str, str]) -> Raw | None:
    """`{train,val,test}/<class>/*`; the classes are the sorted folders of train, renamed by `words`.

    Raises ValueError for a class missing from a split, a class without images, an unreadable image, and images of
    several sizes without an `image_size`.
    """
    if not (folder / "train").is_dir() or any((folder / "train").glob("*.parquet")):
        return None
    files = {name: _list_classes(folder / name) for name in ("train", "val", "test") if (folder / name).is_dir()}
    classes = sorted(files["train"])
    for name, folders in files.items():
        for odd in sorted(set(classes) ^ set(folders)):
            here, there = (name, "train") if odd in classes else ("train", name)
            raise ValueError(f"{folder}: class {odd!r} is in {there} but not in {here}; every split needs every class")

    def decode_split(name: str) -> Split:
        paths = [path for entry in classes for path in files[name][entry]]
        labels = np.repeat(np.arange(len(classes)), [len(files[name][entry]) for entry in classes])
        images = decode([(str(path), path) for path in paths], image_size, f"{folder.name}/{name}")
        return checked_split(images, labels, len(classes), folder / name)

    paths = [path for folders in files.values() for entry in classes for path in folders[entry]]
    splits = _cached(cache, folder, paths, image_size, lambda: {name: decode_split(name) for name in files})
    names = [words.get(entry, entry) for entry in classes]
    return Raw(official_splits(splits, folder), names, f"{folder}/<split>/<class>/*")


def _list_classes(folder: Path) -> dict[str, list[Path]]:
    entries = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    if not entries:
        raise ValueError(f"{folder}: has no class folders; put the images into {folder.name}/<class>/")
    files = {entry.name: sorted(filter(is_image, entry.iterdir())) for entry in entries}
    if empty := next((entry for entry in entries if not files[entry.name]), None):
        raise ValueError(f"{empty}: has no images; add some ({', '.join(sorted(EXTENSIONS))}) or delete the folder")
    return files


def is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and path.is_file()  # neither a folder x.png nor a dangling link


def read_parquet(folder: Path, image_size: int | None, cache: Path) -> Raw | None:
    """Hugging Face's parquet files: a column `img` or `image` of {bytes, path}, `fine_label` or `label`, and perhaps
    `coarse_label`; class names come from the file's metadata. Raises ValueError for other columns or damaged files."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        if split := re.match(r"train|test|val", path.stem) or re.match(r"train|test|val", path.parent.name):
            files.setdefault(split[0], []).append(path)
    if "train" not in files:
        return None
    tables = {name: _Table(paths) for name, paths in files.items()}
    train = tables["train"]
    paths = [path for part in files.values() for path in part]
    classes = len(train.class_names)
    build = lambda: {name: table.split(image_size, classes) for name, table in tables.items()}  # noqa: E731
    splits = _cached(cache, folder, paths, image_size, build)
    return Raw(official_splits(splits, folder), train.class_names, f"{folder}/*.parquet", *train.superclasses())


class _Table:
    """The parquet files of one split."""

    def __init__(self, paths: list[Path]):
        import pyarrow.parquet as parquet

        self.paths = paths
        try:
            schema = parquet.read_schema(paths[0])
            columns = schema.names
            self.image = next(name for name in ("img", "image") if name in columns)
            self.label = next(name for name in ("fine_label", "label") if name in columns)
            self.coarse = "coarse_label" if "coarse_label" in columns else None
            wanted = [self.label, self.coarse] if self.coarse else [self.label]
            labels = [parquet.read_table(path, columns=wanted) for path in paths]
        except StopIteration:
            needed = "img or image, and fine_label or label are needed"
            raise ValueError(f"{paths[0]}: columns are {', '.join(columns)}; {needed}") from None
        except (OSError, ValueError) as error:  # pyarrow's own errors derive from these
            raise _damaged(paths[0], error) from error
        self.labels, self.coarse_labels = (
            np.concatenate([part[name].to_numpy() for part in labels]) if name else None
            for name in (self.label, self.coarse)
        )
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        self.names = {column: features.get(column, {}).get("names") for column in columns}

    @property
    def class_names(self) -> list[str]:
        return self.names[self.label] or [str(label) for label in range(int(self.labels.max(initial=0)) + 1)]

    def superclasses(self) -> tuple[list[int] | None, list[str] | None]:
        if not self.coarse:
            return None, None
        of_class = dict(zip(self.labels.tolist(), self.coarse_labels.tolist(), strict=True))
        return [of_class[label] for label in sorted(of_class)], self.names[self.coarse]

    def split(self, image_size: int | None, classes: int) -> Split:
        images = decode(list(self._items()), image_size, str(self.paths[0].parent.name))
        return checked_split(images, self.labels, classes, self.paths[0])

    def _items(self) -> Iterator[Item]:
        import pyarrow.parquet as parquet

        for path in self.paths:
            try:
                column = parquet.read_table(path, columns=[self.image])[self.image].to_pylist()
            except (OSError, ValueError) as error:
                raise _damaged(path, error) from error
            yield from ((f"{path} row {row}", cell["bytes"]) for row, cell in enumerate(column))


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: is a damaged parquet file ({str(error).splitlines()[0]}); delete and download it again")


def decode(items: list[Item], image_size: int | None, title: str) -> np.ndarray:
    """Decode on all cores to uint8 RGB [N, size, size, 3]: the central square of each image, resized with antialiasing.

    Raises ValueError for an unreadable image and, without an `image_size`, for images that are not squares of one size.
    """
    if image_size is None:
        image_size = _common_size(set(image_sizes(items)), title)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = np.empty((len(items), image_size, image_size, 3), np.uint8)
        done = pool.map(partial(_decode_one, size=image_size), items)
        for place, image in enumerate(progress_bar(done, total=len(items), desc=f"decoding {title}", unit="image")):
            images[place] = image
    return images


def image_sizes(items: list[Item]) -> list[tuple[int, int]]:
    """(width, height) of each image, from its header. Raises ValueError for an unreadable image."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(_read_image, take=lambda image: image.size), items))


def _common_size(sizes: set[tuple[int, int]], title: str) -> int:
    if len(sizes) == 1 and (size := next(iter(sizes)))[0] == size[1]:
        return size[0]
    listed = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3]) + ", ..." * (len(sizes) > 3)
    raise ValueError(f"{title}: the images are not all squares of one size ({listed}); give an image_size, such as 32")


def _decode_one(item: Item, size: int) -> np.ndarray:
    from PIL import Image

    def fit(image: Image.Image) -> np.ndarray:
        if image.mode.startswith("I"):  # 16-bit grey, which `convert` clips at 255: keep the upper 8 bits
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side))
        return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))  # antialiased, as PIL always is

    return _read_image(item, fit)


def _read_image(item: Item, take: Callable):
    from PIL import Image

    name, source = item
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            return take(image)
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error, ... for damaged files
        reason = str(error).splitlines()[0] if not isinstance(source, bytes) else type(error).__name__
        raise ValueError(f"{name}: is not a readable image ({reason}); replace or delete it") from error


def _content(folder: Path, paths: list[Path], image_size: int | None) -> str:
    """sha256 over the files' names and contents, the decoder's version and the image size."""
    digest = hashlib.sha256(repr((DECODING, image_size)).encode())
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading waits for the disk, hashing lets other threads run
        for path, content in zip(paths, pool.map(artifacts.sha256, paths), strict=True):
            digest.update(f"{path.relative_to(folder).as_posix()}|{content}\n".encode())
    return digest.hexdigest()


def _cached(
    cache: Path, folder: Path, paths: list[Path], image_size: int | None, build: Callable[[], dict[str, Split]]
) -> dict[str, Split]:
    """The result of `build`, from the cache if the same files were decoded to the same size before."""
    file = cache / f"{folder.name}-{_content(folder, paths, image_size)[:16]}.npz"
    if file.is_file():
        try:
            with np.load(file, allow_pickle=False) as arrays:
                kept = {key: torch.from_numpy(arrays[key]) for key in arrays}
            return {
                name: Split(kept[f"{name}/images"], kept[f"{name}/labels"])
                for name in ("train", "val", "test")
                if name == "train" or f"{name}/images" in kept  # without it the file is not a cache of these splits
            }
        except (ValueError, OSError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            pass  # damaged: decode again and overwrite
    splits = build()
    arrays = {f"{name}/images": split.images.numpy() for name, split in splits.items()}
    arrays |= {f"{name}/labels": split.labels.numpy() for name, split in splits.items()}
    try:
        artifacts.write_atomic(file, lambda stream: np.savez(stream, **arrays))
    except OSError as error:
        warnings.warn(f"decoded images could not be cached: {error}", stacklevel=2)
    return splits

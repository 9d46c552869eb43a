"""Colab and Kaggle: `KD_ROOT` and `KD_DATA` for their folders, and links to the data sets that are attached there.

Elsewhere nothing is done. The first cell of each notebook has installed the package before.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from itertools import islice
from mimetypes import guess_type
from pathlib import Path

KAGGLE = Path("/kaggle")
COLAB = Path("/content")
DEPTH = 5  # folders between Kaggle's input folder and the files of a data set
FIRST = 3  # files of a folder that show whether it is of a class
CIFAR = {"meta": "cifar-100-python", "batches.meta": "cifar-10-batches-py"}  # a file of theirs -> torchvision's folder


def set_folders(drive: bool = False) -> None:
    """Set `KD_ROOT` and `KD_DATA` on Kaggle, and on Colab if `drive` is true; variables that are set stay.

    Kaggle keeps `working` with a saved version, not `temp`. Colab keeps Google Drive alone; the data sets stay on
    Colab's own disk, which is faster.
    """
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:  # first: Kaggle's image is made from Colab's
        os.environ.setdefault("KD_ROOT", str(KAGGLE / "working"))
        data = str(KAGGLE / "temp" / "data")
        if os.environ.setdefault("KD_DATA", data) == data:
            link_attached(KAGGLE / "input", Path(data))
    elif drive and "google.colab" in sys.modules:
        from google.colab import drive as google_drive

        google_drive.mount(str(COLAB / "drive"))
        os.environ.setdefault("KD_ROOT", str(COLAB / "drive" / "MyDrive" / "kdhelpers"))
        os.environ.setdefault("KD_DATA", str(COLAB / "data"))


def link_attached(attached: Path, data: Path) -> None:
    """Link the data sets and archives under `attached`, which is read-only, into the data root; what is there stays."""
    for source, name in _data_sets(attached):
        link = data / name
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(source)


def _data_sets(attached: Path) -> Iterator[tuple[Path, str]]:
    """(path, name under the data root) of the folders with training files or class folders, and of the archives."""
    for path, folders, files in os.walk(attached):
        folder = Path(path)
        has_classes = folder != attached and sum(_begins_with_image(folder / name) for name in folders) > 1
        if has_classes or any(map(_is_training, folders + files)):
            yield folder, next((name for file, name in CIFAR.items() if file in files), folder.name)
        for file in files:
            if file.endswith((".tar.gz", ".tgz")):
                yield folder / file, f".cache/{file}"  # where a finished download would be
        last = has_classes or len(folder.relative_to(attached).parts) >= DEPTH
        folders[:] = [] if last else [name for name in folders if name not in ("train", "val", "test")]


def _begins_with_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, FIRST)]
    return any((guess_type(name)[0] or "").startswith("image/") for name in names)


def _is_training(name: str) -> bool:
    return name in ("train", "train.npz", "data_batch_1") or (name.startswith("train") and name.endswith(".parquet"))

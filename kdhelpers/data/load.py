"""Finding and loading a data set by its name: `load_data`.

A registered data set made in Python comes first. The data root is then searched for torchvision's layout, class
folders with splits, `.npz`, Hugging Face parquet and class folders without splits, in this order; only then is the data
set downloaded. A user's folder in one of the last four layouts is a data set under its own name.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from kdhelpers import artifacts
from kdhelpers.data.content import check_content
from kdhelpers.data.dataset import Data, Split, channel_statistics, fingerprint, split_validation
from kdhelpers.data.findings import FEW, Findings, shown
from kdhelpers.data.readers.arrays import Raw, read_npz, read_pickles, resize
from kdhelpers.data.readers.catalogue import DATASETS, Source
from kdhelpers.data.readers.download import download, unpack
from kdhelpers.data.readers.image_files import read_class_folders, read_classes_alone
from kdhelpers.data.readers.parquet import read_parquet
from kdhelpers.data.readers.stand_in import noise_like
from kdhelpers.data.readers.unlabelled import check_unlabelled, take_unlabelled
from kdhelpers.nearest import known_names

LAYOUTS = "{train,test}/<class>/*.png, <class>/*.png, {train,test}.npz or {train,test}*.parquet"


def load_data(
    name: str = "digits",
    image_size: int | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    root: Path | str | None = None,
    unlabelled: str | None = None,
) -> Data:
    """Load a data set by its name in `DATASETS`, or by the name of a folder under the data root.

    Images are uint8 [N, 3, S, S] with S = `image_size` (None: the data set's own), resized from their central
    square. Validation is a stratified `val_fraction` of the training images, determined by `split_seed`, unless the
    source has train, val and test. `root` overrides the data root. `unlabelled` names images without labels, see
    `take_unlabelled`: a part of the training images after the validation split, the test images, a pickle or a folder.

    Raises ValueError for an unknown name, an argument out of range or bad content, FileNotFoundError for an incomplete
    data set, ConnectionError if a download fails.
    """
    root = Path(root) if root is not None else artifacts.data_root()
    if image_size is not None and (type(image_size) is not int or image_size < 8):
        raise ValueError(f"image_size = {image_size}: is out of range; choose whole pixels from 8, such as 32")
    if unlabelled:
        check_unlabelled(unlabelled)  # before the data set is read
    found, source = Findings(name), _find_source(name, root)
    raw = read_raw(name, source, root, image_size, found)
    found.stop_unless_complete()
    notes = (*_deviations(raw, source), *found.say())
    splits = _resized(raw, image_size or source.image_size)
    if "val" in splits:
        train, val = splits["train"], splits["val"]
    else:
        train, val = split_validation(splits["train"], val_fraction, split_seed)
    mean, std = source.statistics or channel_statistics(train.images)
    unlabelled_images = None
    if unlabelled:
        train, unlabelled_images = take_unlabelled(unlabelled, train, splits["test"], split_seed, raw.pixel_ranges)
    names = raw.class_names, raw.superclasses, raw.superclass_names
    extras = notes, unlabelled_images, raw.pixel_ranges, raw.test_split, found.leaks
    return Data(name, train, val, splits["test"], *names, mean, std, raw.source, *extras)


def check_data(name: str, image_size: int | None = None, root: Path | str | None = None) -> Findings:
    """All findings on a data set, in one reading. Raises as `load_data` only if there is nothing to read."""
    root = Path(root) if root is not None else artifacts.data_root()
    found, source = Findings(name, complete=True), _find_source(name, root)
    with found.gather():
        raw = read_raw(name, source, root, image_size, found)
        for deviation in _deviations(raw, source):
            found.add("official", raw.source, what=deviation)
        _resized(raw, image_size or source.image_size)
        check_content(raw, found)
    return found


def read_raw(name: str, source: Source, root: Path, image_size: int | None, found: Findings) -> Raw:
    """The content of the data set before the validation split; it is downloaded if it is missing."""
    # Official content is compared pixel for pixel, so it is resized only after reading.
    size = None if source.fingerprints else image_size or source.image_size
    try:
        raw = _read_or_download(name, source, root, size, found)
    except OSError as error:
        if not error.filename:  # it has a text for the user already
            raise
        reason = f"cannot be read ({error.strerror}); change its permissions, or copy the data set elsewhere"
        raise ValueError(f"{shown(error.filename)}: {reason}") from error
    if len(raw.class_names) == 1:
        found.add("one_class", raw.source, name=raw.class_names[0])
    return raw


def _find_source(name: str, root: Path) -> Source:
    if name in DATASETS:
        return DATASETS[name]
    if name and Path(name).name == name and not name.startswith(".") and (root / name).is_dir():
        return Source(f"the folder {root / name}")
    raise ValueError(f"dataset = {name}: {unknown_dataset(name, root)}")


def unknown_dataset(name: str, root: Path | None = None) -> str:
    """Why the name is not of a data set, and the remedy."""
    root = root or artifacts.data_root()
    place = root / name
    if len(Path(name).parts) > 1 or "\\" in name:
        return f"is a path; copy or link the folder into {root}, and give its name alone"
    if name and place.is_symlink() and not place.exists():
        return f"{place} is a link to what is missing; restore it, or link the folder again"
    if name and place.is_file():
        return f"{place} is a file; unpack it, or put {LAYOUTS} into a folder"
    if name and place.is_dir():
        return "has other characters than letters, digits and . _ + -; rename the folder"
    return f"unknown; {known_names(name, *known_datasets(root))}"


def known_datasets(root: Path | None = None) -> tuple[list[str], str]:
    """The names that `load_data` takes, registered ones first, and what else it takes; hidden folders are left out."""
    root = root or artifacts.data_root()
    registered = {folder for name, source in DATASETS.items() for folder in _folders_of(name, source)}
    folders = sorted(shown(path.name) for path in root.glob("[!.]*") if path.is_dir() and path.name not in registered)
    return [*DATASETS, *folders], f"or the name of a folder under {root}"


def is_stored(name: str, root: Path | None = None) -> bool:
    """Whether the data root has a folder of the data set `name`; its content is not read."""
    root = root or artifacts.data_root()
    folders = _folders_of(name, DATASETS[name]) if name in DATASETS else [name]
    return any(any((root / folder).glob("[!.]*")) for folder in folders)


def _folders_of(name: str, source: Source) -> list[str]:
    return [name, *source.folders, *([source.pickles.folder] if source.pickles else [])]


def _read_or_download(name: str, source: Source, root: Path, size: int | None, found: Findings) -> Raw:
    if raw := _read(name, source, root, size, found):
        return raw
    if artifacts.rehearsed_root() and source.counts:
        return noise_like(name, source, size)
    if name not in DATASETS:
        found.stop()
        held = ", ".join(sorted(shown(path.name) for path in (root / name).iterdir())[:FEW]) or "nothing"
        raise ValueError(f"{root / name}: has no data set (it holds {held}); put {LAYOUTS} there")
    with artifacts.lock(root / ".cache" / f"{name}.lock"):  # another process may download it during the wait
        return _read(name, source, root, size, found) or _download(name, source, root, size, found)


def _download(name: str, source: Source, root: Path, size: int | None, found: Findings) -> Raw:
    """Called by one process at a time."""
    reasons = []
    for fetch in _downloads(name, source, root):
        try:
            fetch()
            return _read(name, source, root, size, found)
        except (OSError, ValueError) as error:
            reasons.append(str(error))
    layout = f"{source.pickles.folder}/" if source.pickles else f"{(*source.folders, name)[0]}/{{train,val}}/<class>/*"
    by_hand = f"{layout} (from {source.archive.url}), or " if source.archive else ""
    raise ConnectionError(
        f"{name} is not under {root} and could not be downloaded ({'; '.join(reasons) or 'no url'}); put there by hand "
        f"{by_hand}{LAYOUTS} under {name}/"
    )


def _read(name: str, source: Source, root: Path, size: int | None, found: Findings) -> Raw | None:
    """The data set from its own reader or the first layout found; None if there is none."""
    if source.read:
        if not isinstance(raw := source.read(size), Raw):
            returned = type(raw).__name__
            raise TypeError(f"DATASETS[{name!r}].read: returned a {returned}; return dataset_from_arrays(...)")
        return raw
    if source.pickles and (raw := read_pickles(root, source.pickles)):
        return raw
    cache, folder = root / ".cache", root / name
    for other in (name, *source.folders):
        if raw := read_class_folders(root / other, size, cache, source.words or {}, found):
            return raw
    if not folder.is_dir():
        return None
    raw = read_npz(folder, found) or read_parquet(folder, size, cache, found)
    return raw or (read_classes_alone(folder, size, cache, found) if name not in DATASETS else None)


def _downloads(name: str, source: Source, root: Path) -> list[Callable[[], None]]:
    """The possible downloads, fastest first: the host of the original CIFAR archives is slow since 2026.

    An archive that lies in `.cache` comes before all, since it is only unpacked.
    """
    archive = root / ".cache" / source.archive.url.rsplit("/", 1)[1] if source.archive else None

    def fetch_parquet() -> None:
        cache = root / ".cache" / name  # the data set's own folder gets all files or none, and only verified ones
        files = [download(url, cache / f"{split}.parquet") for split, url in source.parquet.items()]
        try:
            for deviation in _deviations(read_parquet(cache, None, root / ".cache", Findings(name)), source):
                raise ValueError(f"{files[0].parent}: {deviation}; the download is discarded")
        except ValueError:
            for file in files:
                file.unlink()
            raise
        (root / name).mkdir(exist_ok=True)
        for file in reversed(files):  # train last: a folder without it does not count, after a kill
            os.replace(file, root / name / file.name)

    def fetch_archive() -> None:
        unpack(download(source.archive.url, archive, source.archive.md5), root)
        with contextlib.suppress(OSError):  # the data set is there all the same
            archive.unlink()

    fetches = [fetch_parquet] * bool(source.parquet) + [fetch_archive] * bool(archive)
    return fetches[::-1] if archive and archive.is_file() else fetches


def _deviations(raw: Raw, source: Source) -> Iterator[str]:
    """How the content differs from the official content."""
    if raw.verified:
        return
    for split, count in (source.counts or {}).items():
        images = len(raw.splits[split])
        if images != count:
            yield f"{split} has {images:,} images; the official split has {count:,}"
        elif split in (source.fingerprints or {}) and fingerprint(raw.splits[split]) != source.fingerprints[split]:
            yield f"{split} differs from the official images or labels"


def _resized(raw: Raw, size: int | None) -> dict[str, Split]:
    shapes = {name: tuple(split.images.shape[2:]) for name, split in raw.splits.items()}
    height, width = shapes["train"]
    if size is None and (height != width or len(set(shapes.values())) > 1):
        listed = ", ".join(f"{name} {shape[1]}x{shape[0]}" for name, shape in shapes.items())
        raise ValueError(f"{raw.source}: the images are not all squares of one size ({listed}); give an image_size")
    return {name: Split(resize(split.images, size or height), split.labels) for name, split in raw.splits.items()}

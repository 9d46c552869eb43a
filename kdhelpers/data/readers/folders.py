"""Which image files of a folder belong to which split and class: class folders in the layouts that people have.

`{train,val,test}/<class>/*`, in any case of letters and one level deeper; class folders without splits, of which a
fifth becomes the test split; and Tiny-ImageNet's `train/<class>/images/*` with `val/val_annotations.txt`.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from kdhelpers.artifacts import read_file
from kdhelpers.data.findings import IMAGE_KINDS, Findings, shown

EXTENSIONS = frozenset(IMAGE_KINDS.split(", "))
SYSTEM = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db", "desktop.ini"}
TEXTS = {".txt", ".csv", ".json", ".md", ".xml"}  # next to images they are common, and nobody misses them
SPLITS = ("train", "val", "test")
SYNONYMS = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
Classes = dict[str, list[Path]]  # class -> its images, in the order of both


def is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and path.is_file()  # neither a folder x.png nor a dangling link


def natural(name: str) -> list:
    """Sort key: 10 after 9; 01 and 1 by their text."""
    parts = re.split(r"([0-9]+)", name)  # text, number, text, ...
    return [[int(part) if position % 2 else part for position, part in enumerate(parts)], name]


def find_class_folders(folder: Path, found: Findings) -> dict[str, Classes] | None:
    """Split -> class -> images, with the same classes in every split; None without a folder of a train split."""
    folder = _unpacked(folder)
    folders = _split_folders(folder, found)
    if "train" not in folders or any(folders["train"].glob("*.parquet")):
        return None
    if {"val", "test"} <= folders.keys() and _has_no_labels(folders["test"], folders["train"]):
        found.add("test_without_labels", folders.pop("test"))
    splits = {name: _classes_of(path, found) for name, path in folders.items()}
    for name in splits.keys() - {"train"}:
        if splits[name]:
            _compare(folder, name, splits["train"], splits[name], found)
    if not {"val", "test"} & splits.keys():
        found.add("no_test", folder)
    return {name: {each: classes.get(each, []) for each in splits["train"]} for name, classes in splits.items()}


def find_classes_alone(folder: Path, found: Findings) -> Classes | None:
    """Class -> images of class folders without splits; None if there are none."""
    folder = _unpacked(folder)
    entries = _subfolders(folder)
    if not any(_images(entry, Findings()) for entry in entries):
        if (tables := sorted(folder.glob("*.csv"))) and any(is_image(path) for path in folder.iterdir()):
            found.add("labels_in_table", folder, table=tables[0].name)
        return None
    if split := next((entry.name for entry in entries if entry.name.lower() in SPLITS), None):
        found.add("no_train", folder, split=split)
        return None
    return _classes_of(folder, found)


def _unpacked(folder: Path) -> Path:
    """The folder, or the single one in it that has the classes or splits, as after unpacking an archive."""
    entries = _subfolders(folder) if folder.is_dir() else []
    alone = len(entries) == 1 and entries[0].name.lower() not in {*SPLITS, *SYNONYMS}
    if not alone or any(path.suffix in (".npz", ".parquet") or is_image(path) for path in folder.iterdir()):
        return folder
    inner = _subfolders(entries[0])
    return _unpacked(entries[0]) if inner and not entries[0].is_symlink() else folder


def _subfolders(folder: Path) -> list[Path]:
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    return [entry for entry in entries if entry.name not in SYSTEM and entry.is_dir()]


def _split_folders(folder: Path, found: Findings) -> dict[str, Path]:
    """Split -> its folder. A synonym counts only if the data set had no such split otherwise."""
    named: dict[str, list[Path]] = {}
    entries = _subfolders(folder) if folder.is_dir() else []
    for entry in entries:
        named.setdefault(entry.name.lower(), []).append(entry)
    for name in SPLITS:
        if len(twins := named.get(name, [])) > 1:
            found.add("split_twice", folder, names=" and ".join(path.name for path in twins))
    folders = {name: named[name][0] for name in SPLITS if name in named}
    for name, role in SYNONYMS.items():
        needed = role not in folders and (role == "train" or not {"val", "test"} & folders.keys())
        if name in named and needed and ("train" in folders or {"train", "training"} & named.keys()):
            folders[role] = named[name][0]
        elif name in named and "train" in folders:
            found.add("split_unread", named[name][0], role=role)
    return {name: folders[name] for name in SPLITS if name in folders}


def _classes_of(folder: Path, found: Findings) -> Classes:
    """The classes of a split's folder by their names in NFC without spaces around them, in natural order."""
    entries = [entry for entry in _subfolders(folder) if not _is_loop(entry, found)]
    _report_passed(folder, bool(entries), found)
    table = next(iter(sorted(folder.glob("*annotations.txt"))), None)
    if table and len(entries) == 1:
        return _annotated(table, entries[0], found)
    if not entries and (tables := sorted([*folder.glob("*.csv"), *folder.parent.glob("*.csv")])):
        found.add("labels_in_table", folder, table=tables[0].name)
    elif not entries:
        found.add("no_classes", folder, split=folder.name)
    named: dict[str, list[Path]] = {}
    for entry in entries:
        named.setdefault(class_name(entry.name), []).append(entry)
    _report_names(folder, named, found)
    return {name: _class_images(named[name][0], found) for name in sorted(named, key=natural)}


def class_name(name: str) -> str:
    """A folder's name as macOS, Windows and Linux agree on it: composed, without spaces around it, printable."""
    return unicodedata.normalize("NFC", shown(name)).strip()


def _report_names(folder: Path, named: dict[str, list[Path]], found: Findings) -> None:
    for name, entries in named.items():
        if len(entries) > 1:
            found.add("same_class", folder, names=" and ".join(ascii(entry.name) for entry in entries))
        if entries[0].name != entries[0].name.strip():
            found.add("spaces", entries[0], name=name)
    cases = Counter(name.casefold() for name in named)
    for folded in (name for name, count in cases.items() if count > 1):
        found.add("case", folder, names=", ".join(name for name in named if name.casefold() == folded))


def _is_loop(entry: Path, found: Findings) -> bool:
    loops = entry.is_symlink() and entry.resolve() in [entry.parent.resolve(), *entry.parent.resolve().parents]
    if loops:
        found.add("loop", entry)
    return loops


def _report_passed(folder: Path, has_classes: bool, found: Findings) -> None:
    """Findings of what lies next to the class folders."""
    loose = 0
    for entry in folder.iterdir():
        loose += is_image(entry) and not entry.name.startswith(".")
        if entry.name in SYSTEM:
            found.add("hidden", entry)
        elif entry.is_symlink() and not entry.exists():
            found.add("broken_link", entry)
    if loose and has_classes:
        found.add("loose", folder, count=loose)


def _class_images(folder: Path, found: Findings) -> list[Path]:
    images = _images(folder, found)
    if not images and (others := _kinds(folder)):
        found.add("unknown_kind", folder, kinds=others)
    elif not images:
        found.add("empty_class", folder)
    elif others := _kinds(folder):
        found.add("other_files", folder, kinds=others)
    return images


def _images(folder: Path, found: Findings) -> list[Path]:
    """The images in the folder; if there are none, those in its subfolders. Hidden files do not count."""
    named = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    own = [path for path in named if path.is_file()]
    for path in (path for path in named if path.is_symlink() and not path.exists()):
        found.add("broken_link", path)
    for path in own:
        if path.name.startswith("."):
            found.add("hidden", path)
    own = [path for path in own if not path.name.startswith(".")]
    deeper = sorted(_below(folder))
    if own and deeper:
        found.add("deeper", folder, count=len(deeper))
    return own or deeper


def _below(folder: Path) -> Iterable[Path]:
    """The images in the subfolders; links are not followed."""
    for place, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SYSTEM]
        if Path(place) != folder:
            yield from (Path(place, name) for name in files if not name.startswith(".") and is_image(Path(place, name)))


def _raise(error: OSError) -> None:
    raise error


def _kinds(folder: Path) -> str:
    """`2 .gif, 1 .heic` of the files that are neither images nor of the system; texts and tables do not count."""
    skipped = EXTENSIONS | TEXTS
    others = [path for path in folder.iterdir() if path.suffix.lower() not in skipped and path.name not in SYSTEM]
    files = [path for path in others if not path.name.startswith(".") and path.is_file()]
    counts = Counter(path.suffix.lower() or "without extension" for path in files)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _annotated(table: Path, images: Path, found: Findings) -> Classes:
    """Tiny-ImageNet's val: a line `file<tab>class<tab>...` per image of one folder."""
    rows = [line.split("\t") for line in read_file(table).decode("utf-8", "replace").splitlines() if "\t" in line]
    there, classes = {path.name: path for path in _images(images, found)}, {}
    for file, label, *_ in rows:
        if file not in there:
            found.add("annotated_missing", table, file=file)
        else:
            classes.setdefault(class_name(label), []).append(there[file])
    if rest := there.keys() - {row[0] for row in rows}:
        found.add("not_annotated", images, count=len(rest), file=table.name)
    return {name: sorted(classes[name]) for name in sorted(classes, key=natural)}


def _has_no_labels(test: Path, train: Path) -> bool:
    """Whether the images of a test split lie in one folder, without classes."""
    names = [entry.name for entry in _subfolders(test)]
    flat = not names and any(is_image(path) for path in test.iterdir())
    return flat or (len(names) == 1 and names[0] not in {entry.name for entry in _subfolders(train)})


def _compare(folder: Path, split: str, train: Classes, other: Classes, found: Findings) -> None:
    folded = {name.casefold(): name for name in train}
    for odd in sorted(train.keys() ^ other.keys()):
        here, there = (split, "train") if odd in train else ("train", split)
        twin = folded.get(odd.casefold(), odd)
        hint = f"; {twin!r} of train differs in case only: rename one" if twin != odd else ""
        found.add("missing_class", folder, name=odd, here=here, there=there, hint=hint)

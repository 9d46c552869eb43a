"""What is wrong with the files of a data set: `FAULTS`, the list of all checks, and `Findings`, what a reading found.

`load_data` stops at the first serious finding and says the others once. `check_data` collects all of them.
"""

import contextlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kdhelpers.messages import inform, printable, short

SERIOUS, WARNING, NOTE = "serious", "warning", "note"
LEAK = "the same file is in train"
DIRECTION = "[\u200e\u200f\u202a-\u202e\u2066-\u2069]"
LONGEST = 300  # characters of a text in a finding
FEW = 3  # places that a long list names
IMAGE_KINDS = ".bmp, .jpeg, .jpg, .png, .ppm, .tif, .tiff, .webp"


class Fault(NamedTuple):
    """A check: how serious it is, its complaint and the remedy, both with fields in braces."""

    severity: str
    what: str
    remedy: str


FAULTS = {
    # the layout of class folders
    "no_classes": Fault(SERIOUS, "has no class folders", "put the images into {split}/<class>/"),
    "labels_in_table": Fault(
        SERIOUS, "has images without class folders next to {table}", "put the images into <class>/"
    ),
    "no_train": Fault(SERIOUS, "has {split} but not train", "add train/<class>/"),
    "no_test": Fault(
        SERIOUS,
        "has train but neither test nor val",
        "add a test split, or move the class folders out of train/: then a fifth of the images is the test split",
    ),
    "split_twice": Fault(SERIOUS, "the folders {names} are the same split", "merge them, or rename one"),
    "split_unread": Fault(WARNING, "the folder is not read", "rename it to {role}, if it is the {role} split"),
    "test_without_labels": Fault(
        WARNING, "has images without class folders and is not read", "the images of val are the test split"
    ),
    "missing_class": Fault(
        SERIOUS, "class {name!r} is in {there} but not in {here}", "every split needs every class{hint}"
    ),
    "same_class": Fault(SERIOUS, "the folders {names} are one class", "merge them"),
    "spaces": Fault(NOTE, "the name begins or ends with a space", "the class is called {name!r}"),
    "case": Fault(WARNING, "the classes {names} differ in case only", "merge them if they are one class"),
    "one_class": Fault(SERIOUS, "has one class, {name!r}", "a classifier needs two or more; add another"),
    "empty_class": Fault(SERIOUS, "has no images", f"add some ({IMAGE_KINDS}), or remove the empty folder"),
    "unknown_kind": Fault(
        SERIOUS, "has no images of a kind that is read, only {kinds}", f"convert the files to one of {IMAGE_KINDS}"
    ),
    "other_files": Fault(
        WARNING, "files of other kinds are not read: {kinds}", f"convert them if they are images ({IMAGE_KINDS})"
    ),
    "deeper": Fault(WARNING, "images in its subfolders are not read ({count})", "move them up to the others"),
    "loose": Fault(
        WARNING,
        "images next to the class folders are not read ({count})",
        "move them into the folders of their classes",
    ),
    "broken_link": Fault(SERIOUS, "is a link to what is missing", "restore it, or remove the link"),
    "loop": Fault(WARNING, "is a link to a folder around it and is not read", "remove the link"),
    "hidden": Fault(NOTE, "belongs to the system and is not read", "nothing to do"),
    "annotated_missing": Fault(SERIOUS, "names {file}, which is missing", "copy the image, or remove the line"),
    "not_annotated": Fault(WARNING, "images without a line in {file} are not read ({count})", "add their lines"),
    "split_made": Fault(
        NOTE, "has no test split", "{share} of the images of each class, by seed {seed}, is the test split ({count:,})"
    ),
    "few_to_split": Fault(
        SERIOUS, "has no test split and too few images to take one from ({count})", "add images, or test/<class>/"
    ),
    "not_in_test": Fault(WARNING, "class {name!r} has too few images for the test split", "add images of it"),
    # the files of images
    "unreadable": Fault(SERIOUS, "is not a readable image ({reason})", "get it again, or move it out of the folder"),
    "impostor": Fault(SERIOUS, "is {kind}, not an image", "{remedy}"),
    "too_large": Fault(SERIOUS, "has more than {most:,} pixels", "save it smaller"),
    "not_finite": Fault(SERIOUS, "has pixels that are not finite numbers", "repair it, or move it out of the folder"),
    "sizes": Fault(
        SERIOUS, "the images are not all squares of one size ({sizes})", "give an image_size, such as {fitting}"
    ),
    "memory": Fault(
        SERIOUS,
        "{count:,} images at {size} px need {needed:.1f} GiB of memory, {free:.1f} GiB are free",
        "take image_size = {fitting} or less",
    ),
    "animated": Fault(WARNING, "has several frames or pages, and only the first is read", "save them as single images"),
    "transparent": Fault(NOTE, "is transparent", "it is laid on white"),
    "turned": Fault(NOTE, "has an EXIF orientation", "the image is turned by it"),
    "enlarged": Fault(WARNING, "is smaller than {size} px and is enlarged", "take a smaller image_size"),
    "deep": Fault(NOTE, "has more than 8 bits per value", "{low:g} to {high:g} becomes 0 to 255"),
    "clipped": Fault(WARNING, "has values up to {most:g}, above {high:g} of the training images", "they are clipped"),
    "dark_colour": Fault(
        WARNING, "has 16 bits per colour, of which the upper 8 reach only {most} of 255", "save it with 8 bits"
    ),
    "slow": Fault(
        WARNING, "reading takes {milliseconds:.0f} ms a file", "copy the data set to a local disk and set KD_DATA to it"
    ),
    # the content
    "leak": Fault(WARNING, f"{LEAK}: an image of {{split}} is trained on", "remove it from one of the two splits"),
    "equal_pixels": Fault(
        WARNING, "{count:,} of {whole:,} images of {split} have the pixels of a training image", "remove them"
    ),
    "two_labels": Fault(WARNING, "the same file is in two classes", "keep it in one of them"),
    "uneven": Fault(
        NOTE, "class {small!r} has {fewest:,} training images, {large!r} has {most:,}", "the classes are uneven"
    ),
    "one_colour": Fault(WARNING, "images of {split} have one colour only ({count:,})", "look at some of them"),
    "dark": Fault(WARNING, "no pixel of {split} is brighter than {most} of 255", "scale the values to 0..255"),
    "official": Fault(WARNING, "{what}", "take care: published figures are of the official one"),
    # parquet
    "columns": Fault(SERIOUS, "columns are {names}", "{needed}"),
    "shards": Fault(SERIOUS, "lacks the column {column} of {first}", "save all files of a split with the same columns"),
    "null_label": Fault(SERIOUS, "column {column} has no value", "fill it in, or leave the row out"),
    "label_kind": Fault(SERIOUS, "column {column} holds {kind}", "save whole numbers from 0, or texts"),
    "unknown_label": Fault(SERIOUS, "column {column} is {label!r}, which train lacks", "every split needs every class"),
    "unlabelled": Fault(
        WARNING, "column {column} is -1 in every row, so there are no labels", "the images of val are the test split"
    ),
    "no_bytes": Fault(SERIOUS, "column {column} has {held}", "save the bytes of the images in the file"),
    "parquet": Fault(SERIOUS, "is not a readable parquet file ({reason})", "get it again"),
    # any ValueError of a reader
    "error": Fault(SERIOUS, "{what}", "{remedy}"),
}


class Finding(NamedTuple):
    severity: str
    where: str  # file, row or folder
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


def shown(path: Path | str) -> str:
    """A path as text that can be printed and encoded: control characters, and bytes that are not UTF-8, as \\xe9; marks
    of direction as \\u202e."""
    text = re.sub("[\\x00-\\x1f\\x7f-\\x9f\ud800-\udfff]", lambda odd: f"\\x{ord(odd[0]) & 0xFF:02x}", str(path))
    return re.sub(DIRECTION, lambda mark: f"\\u{ord(mark[0]):04x}", text)


def _finding(fault: str, where: Path | str, facts: dict[str, object]) -> Finding:
    severity, what, remedy = FAULTS[fault]
    texts = {
        name: short(shown(fact), LONGEST) if isinstance(fact, (str, Path)) else fact for name, fact in facts.items()
    }
    return Finding(severity, printable(shown(where)), what.format(**texts), remedy.format(**texts))


class Findings(list[Finding]):
    """What the reading of a data set has found so far.

    complete: it goes on to the end for all findings, even if one is serious.
    """

    def __init__(self, name: str = "", complete: bool = False):
        super().__init__()
        self.name, self.complete, self._known = name, complete, set()

    def add(self, fault: str, where: Path | str, **facts: object) -> None:
        self.take(_finding(fault, where, facts))

    def hint(self, fault: str, where: Path | str, **facts: object) -> None:
        """Print it at once, during a long reading; it is kept only for a complete list."""
        finding = _finding(fault, where, facts)
        _say_once(str(finding))
        if self.complete:
            self.take(finding)

    def take(self, finding: Finding) -> None:
        """Append it, unless it is known."""
        if finding not in self._known:
            self._known.add(finding)
            self.append(finding)

    @property
    def serious(self) -> list[Finding]:
        return [finding for finding in self if finding.severity == SERIOUS]

    @property
    def leaks(self) -> int:
        """The number of files that are copies of training files."""
        return sum(finding.what.startswith(LEAK) for finding in self)

    @contextlib.contextmanager
    def gather(self) -> Iterator[None]:
        """A ValueError `where: what; remedy` of the block becomes a finding."""
        try:
            yield
        except ValueError as error:
            if not any(f"{known.what}; {known.remedy}" in str(error) for known in self.serious):
                where, _, rest = str(error).partition(": ")
                what, _, remedy = rest.rpartition("; ")
                self.add("error", where, what=what or rest, remedy=remedy if what else "repair it")

    def stop(self) -> None:
        """ValueError with the first serious finding, if there is one."""
        if serious := grouped(self.serious):
            others = len(serious) - 1
            more = f" ({others} more: `python -m kdhelpers data {self.name} --check` lists all)"
            raise ValueError(line(*serious[0]) + more * bool(others and self.name))

    def stop_unless_complete(self) -> None:
        if not self.complete:
            self.stop()

    def say(self) -> list[str]:
        """The lines of what is not serious; each is printed once in a process."""
        lines = [line(*group) for group in grouped([each for each in self if each.severity != SERIOUS])]
        for text in lines:
            _say_once(text)
        return lines


@cache
def _say_once(text: str) -> None:
    inform(text)


def grouped(findings: list[Finding]) -> list[tuple[Finding, list[str]]]:
    """The first finding of each kind with the places of all of that kind; the serious ones first."""
    groups: dict[tuple, list[Finding]] = {}
    for finding in sorted(findings, key=lambda each: (SERIOUS, WARNING, NOTE).index(each.severity)):
        groups.setdefault((finding.severity, finding.what, finding.remedy), []).append(finding)
    return [(group[0], [each.where for each in group]) for group in groups.values()]


def places(wheres: list[str]) -> str:
    """The first few places, and how many more there are."""
    more = f" and {len(wheres) - FEW:,} more" if len(wheres) > FEW else ""
    return ", ".join(wheres[:FEW]) + more


def line(first: Finding, wheres: list[str]) -> str:
    return str(first._replace(where=places(wheres)))

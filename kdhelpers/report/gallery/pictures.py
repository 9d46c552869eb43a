"""The saved pictures and interactive pages of plots/, and what each belongs to."""

import csv
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from pathlib import Path

from kdhelpers.report.gallery.settings import EMBEDDED

PAGE_TITLE = re.compile("<title>kdhelpers: (.*?)</title>", re.DOTALL)  # marks a page of this package
TITLE_BYTES = 4096  # the title stands in the head


@dataclass(frozen=True)
class _File:
    path: Path

    @property
    def is_embedded(self) -> bool:
        return EMBEDDED in self.path.stem.split("_")


@dataclass(frozen=True)
class Picture(_File):
    """A saved picture; `data` is the name of the file of its numbers, or empty."""

    data: str

    @property
    def caption(self) -> str:
        return self.path.stem.replace("_", " ")

    @cached_property
    def alt(self) -> str:
        """The description in the file, else the name and the columns of its data."""
        return self._head[0] or _columns(self.path, self.data) or f"picture: {self.caption}"

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height: with them a page does not move while its pictures load."""
        return self._head[1]

    @cached_property
    def _head(self) -> tuple[str, tuple[int, int] | None]:
        return _description_and_size(self.path)


@dataclass(frozen=True)
class Page(_File):
    """An interactive page of this package."""

    title: str


def saved_pictures(folder: Path) -> list[Picture]:
    found = []
    for path in filter(Path.is_file, sorted(folder.glob("*.png"))):
        table = path.with_suffix(".csv")
        found.append(Picture(path, table.name if table.is_file() else ""))
    return found


def saved_pages(folder: Path) -> list[Page]:
    """The interactive pages that this package wrote; a user's own pages are not listed."""
    paths = [path for path in sorted(folder.glob("*.html")) if path.is_file() and path.name != "index.html"]
    titles = ((path, PAGE_TITLE.search(_head(path))) for path in paths)
    return [Page(path, unescape(title[1])) for path, title in titles if title]


def _head(path: Path) -> str:
    with open(path, "rb") as file:
        return file.read(TITLE_BYTES).decode(errors="replace")


def dataset_of(page: Path) -> str:
    """The data set of an executed notebook as HTML."""
    found = re.search('<meta name="dataset" content="(.*?)">', _head(page))
    return unescape(found[1]) if found else ""


def by_record(pictures: Sequence[Picture], names: Collection[str]) -> dict[str, list[Picture]]:
    """Name of a record -> the pictures that are called after it: <name>_curves."""
    owned: dict[str, list[Picture]] = {}
    for picture in pictures:
        name = picture.path.stem
        while name and name not in names:
            name = name.rpartition("_")[0]
        if name:
            owned.setdefault(name, []).append(picture)
    return owned


def _description_and_size(path: Path) -> tuple[str, tuple[int, int] | None]:
    """The text of a PNG that says what it shows; empty and None for a file that is not a picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:  # reads the head alone
            return str(image.info.get("Description", "")).strip(), image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "", None


def _columns(path: Path, data: str) -> str:
    try:
        with open(path.with_name(data), encoding="utf-8", newline="") as file:
            columns = next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return ""
    names = ", ".join(column.replace("_", " ") for column in columns[:6])
    return f"{path.stem.replace('_', ' ')}: picture of {names}" if names else ""

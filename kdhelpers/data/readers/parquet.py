"""Reading a data set from Hugging Face's parquet files."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from kdhelpers import artifacts
from kdhelpers.data.findings import Findings, shown
from kdhelpers.data.readers.arrays import Raw, checked_split, official_splits
from kdhelpers.data.readers.decoded_cache import Built, cached
from kdhelpers.data.readers.decoding import Item, decode
from kdhelpers.data.readers.folders import class_name, natural
from kdhelpers.data.readers.image_files import cut, report_copies
from kdhelpers.messages import short

MOST_CLASSES = 2**20
NEEDED = "img or image, and fine_label or label are needed"


def read_parquet(folder: Path, image_size: int | None, cache: Path, found: Findings) -> Raw | None:
    """A column `img` or `image` of {bytes, path} or bytes, `fine_label` or `label`, and perhaps `coarse_label`.

    Labels are whole numbers, with names in the file's metadata, or texts, which are the names. Raises ValueError for
    other columns, missing values or damaged files.
    """
    files = _files(folder)
    if "train" not in files:
        return None
    tables = {name: _Table(paths, found) for name, paths in files.items()}
    found.stop_unless_complete()
    train = tables["train"]
    if {"val", "test"} <= tables.keys() and set(tables["test"].labels.tolist()) == {-1}:
        found.add("unlabelled", tables.pop("test").paths[0], column=train.label)
    for table in tables.values():
        table.number(train.texts)
    found.stop_unless_complete()
    paths = [path for table in tables.values() for path in table.paths]
    build, classes = partial(_build, folder, tables, image_size), len(train.class_names)
    built = cached(cache, folder, paths, image_size, found, build, classes)
    splits = official_splits(built.splits, folder)
    source = f"{shown(folder)}/*.parquet"
    return Raw(splits, train.class_names, source, *train.superclasses(), pixel_ranges=built.ranges)


def _files(folder: Path) -> dict[str, list[Path]]:
    """Split -> its files, by the name of the file or of its folder."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        if split := re.match(r"train|test|val", path.stem) or re.match(r"train|test|val", path.parent.name):
            files.setdefault(split[0], []).append(path)
    return {name: files[name] for name in ("train", "val", "test") if name in files}


def _build(folder: Path, tables: dict[str, "_Table"], image_size: int | None, found: Findings) -> Built:
    parts = {name: list(table.items(found)) for name, table in tables.items()}
    found.stop_unless_complete()
    items: list[Item] = [item for part in parts.values() for item in part if item[1]]
    labels = {name: table.labels[[bool(content) for _, content in parts[name]]] for name, table in tables.items()}
    decoded = decode(items, image_size, folder.name, found)
    report_copies([name for name, _ in items], decoded.digests, labels, found)
    found.stop_unless_complete()
    splits = cut(decoded.images, decoded.kept, labels)
    classes = len(tables["train"].class_names)
    built = {name: checked_split(*part, classes, tables[name].paths[0]) for name, part in splits.items()}
    return Built(built, decoded.ranges)


def _names(schema) -> dict[str, list[str]]:
    """Column -> the names of its labels, from Hugging Face's metadata, if these are texts."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = {column: facts.get("names") for column, facts in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    listed = {column: of for column, of in names.items() if isinstance(of, list)}
    return {column: [shown(name) for name in of] for column, of in listed.items() if {*map(type, of)} == {str}}


class _Table:
    """The parquet files of one split."""

    def __init__(self, paths: list[Path], found: Findings):
        import pyarrow.parquet as parquet

        self.paths, self._found = paths, found
        self._read: list[Path] = []  # those whose labels could be read
        self.image = self.label = self.coarse = None
        self.names: dict[str, list[str]] = {}
        self.texts: list[str] | None = None  # class names, if the labels are texts
        columns: dict[str, list] = {}
        for path in paths:
            try:
                artifacts.check_file(path)
                schema = parquet.read_schema(path)
                if not self._find_columns(path, schema):
                    continue
                wanted = [name for name in (self.label, self.coarse) if name]
                read = parquet.read_table(path, columns=wanted)
            except Exception as error:  # pyarrow raises OSError, ValueError, NotImplementedError, ...
                found.add("parquet", path, reason=short(error, 200))
                continue
            self._read.append(path)
            for name in wanted:
                columns.setdefault(name, []).append(self._column(path, name, read[name]))
        self.labels, self.coarse_labels = (
            np.concatenate(columns[name]) if columns.get(name) else np.empty(0, np.int64)
            for name in (self.label, self.coarse)
        )
        if self.labels.dtype == object:
            self.texts = sorted(set(self.labels.tolist()), key=natural)

    def _find_columns(self, path: Path, schema) -> bool:
        """Whether the file has the columns of the first one."""
        if self.label is None:
            self.image = next((name for name in ("img", "image") if name in schema.names), None)
            self.label = next((name for name in ("fine_label", "label") if name in schema.names), None)
            self.coarse = "coarse_label" if "coarse_label" in schema.names else None
            if not self.image or not self.label:
                self._found.add("columns", path, names=", ".join(schema.names), needed=NEEDED)
                self.label = None
                return False
            self.names = _names(schema)
        wanted = [name for name in (self.image, self.label, self.coarse) if name]
        for column in [name for name in wanted if name not in schema.names]:
            self._found.add("shards", path, column=column, first=self.paths[0].name)
        return set(wanted) <= set(schema.names)

    def _column(self, path: Path, name: str, column) -> np.ndarray:
        """Whole numbers, or texts as objects; faults become findings."""
        import pyarrow.types as types

        for row in np.flatnonzero(column.is_null().to_numpy()).tolist():
            self._found.add("null_label", f"{path} row {row}", column=name)
        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        if types.is_integer(kind):
            return column.fill_null(0).to_numpy().astype(np.int64)
        if types.is_string(kind) or types.is_large_string(kind):
            return np.array([class_name(text or "") for text in column.to_pylist()], object)
        self._found.add("label_kind", path, column=name, kind=str(kind))
        return np.zeros(len(column), np.int64)

    def number(self, texts: list[str] | None) -> None:
        """Labels that are texts become their places among train's."""
        if texts is None or self.labels.dtype != object:
            return
        places = {text: place for place, text in enumerate(texts)}
        for row, text in enumerate(self.labels.tolist()):
            if text not in places:
                self._found.add("unknown_label", f"{self.paths[0]} row {row}", column=self.label, label=text)
        self.labels = np.array([places.get(text, 0) for text in self.labels.tolist()], np.int64)

    @property
    def class_names(self) -> list[str]:
        highest = int(self.labels.max(initial=0))
        if names := self.texts or self.names.get(self.label):
            return names
        if highest >= MOST_CLASSES:
            raise ValueError(f"{self.paths[0]}: column {self.label} is {highest}: is out of range; number from 0")
        return [str(label) for label in range(highest + 1)]

    def superclasses(self) -> tuple[list[int] | None, list[str] | None]:
        if not self.coarse or self.coarse_labels.dtype == object:
            return None, None
        of_class = dict(zip(self.labels.tolist(), self.coarse_labels.tolist(), strict=True))
        return [of_class[label] for label in sorted(of_class)], self.names.get(self.coarse)

    def items(self, found: Findings) -> Iterator[Item]:
        """Each row's image; without content if it is missing, which is a finding."""
        import pyarrow.parquet as parquet

        for path in self._read:
            try:
                cells = parquet.read_table(path, columns=[self.image])[self.image].to_pylist()
            except Exception as error:
                found.add("parquet", path, reason=short(error, 200))
                continue
            for row, cell in enumerate(cells):
                content = cell.get("bytes") if isinstance(cell, dict) else cell
                if not isinstance(content, bytes):
                    place = "a path without bytes" if isinstance(cell, dict) and cell.get("path") else "no image"
                    held = place if content is None else f"{type(content).__name__} in place of an image"
                    found.add("no_bytes", f"{path} row {row}", column=self.image, held=held)
                yield shown(f"{path} row {row}"), content if isinstance(content, bytes) else b""

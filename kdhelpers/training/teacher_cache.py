"""The teacher's outputs, computed once for all runs that share teacher, images and augmentation.

Crop and flip leave finitely many views of an image, 162 with 4 pixels of padding. A `TeacherCache` has a row of outputs
for each (sample, view) that was computed, in the precision of the computation: a cached output is the live one, bit for
bit. It is stored with the weights, under a name made of everything that its rows depend on.

Only the missing rows of a block are computed. Convolutions in fp32 may round otherwise in a smaller batch, so a cache
that another seed filled may differ from the live teacher in the last digits.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers import artifacts
from kdhelpers.artifacts.files import append
from kdhelpers.data import Batches, Data
from kdhelpers.device import free_memory, to_device
from kdhelpers.messages import inform
from kdhelpers.models import Outputs
from kdhelpers.training.teacher import Teacher

PARTS = ("logits", "embedding")  # of the outputs; maps are too large
MEMORY_SHARE = 0.25  # of the free memory that a cache may take
FIRST_ROWS = 4096
SPREAD = np.int64(0x9E3779B97F4A7C1)  # odd: ids that differ in a bit differ in the product
SIZE_STEP = 128  # missing rows are computed for a multiple of it


class TeacherCache:
    """Rows of outputs in the order in which they were computed: in memory, and in two files that only grow.

    stem: path of the files without extension. view_count: the number of possible view ids. writes: False if another
    process holds the cache; then it grows in memory alone. Files count as far as both are whole, so a process killed
    while it writes loses the rows of one epoch. `.keys` has the view id and a checksum of each row.
    """

    def __init__(self, stem: Path, view_count: int, width: int, dtype: torch.dtype, device: torch.device, writes: bool):
        self.rows_file, self.keys_file = (stem.with_name(f"{stem.name}.{kind}") for kind in ("rows", "keys"))
        self.row_of = torch.full((view_count,), -1)  # by view id, on the CPU: a lookup never waits for the device
        self.view_ids = torch.empty(0, dtype=torch.int64)
        self.rows = torch.empty(0, width, dtype=dtype, device=device)
        self.count, self.row_bytes = 0, width * self.rows.itemsize
        self.capacity = int(MEMORY_SHARE * free_memory(device) // self.row_bytes)
        self.saved = self._read()
        self.writes = writes and self.saved == self.count

    def _read(self) -> int:
        """Load the files as far as memory allows. Returns the number of rows that they hold."""
        if not (self.rows_file.is_file() and self.keys_file.is_file()):
            return 0
        entries = np.fromfile(self.keys_file, np.int64)
        entries = entries[: len(entries) // 2 * 2].reshape(-1, 2)
        whole = min(len(entries), self.rows_file.stat().st_size // self.row_bytes)
        loaded = min(whole, self.capacity)
        raw = np.fromfile(self.rows_file, np.uint8, loaded * self.row_bytes).reshape(loaded, self.row_bytes)
        view_ids, sums = entries[:loaded, 0], entries[:loaded, 1]
        plain = _checksums(raw)  # of earlier versions: without the view id
        right = (sums == _mixed(plain, view_ids)) | (sums == plain)
        if not (right & (view_ids >= 0) & (view_ids < len(self.row_of))).all():
            raise ValueError(f"{self.keys_file}: damaged; delete it, and the teacher computes its outputs again")
        self.add(torch.from_numpy(view_ids.copy()), torch.from_numpy(raw).view(self.rows.dtype))
        return whole

    def add(self, view_ids: Tensor, values: Tensor) -> None:
        """Store `values` [n, width] under new `view_ids` [n], which are on the CPU."""
        first, self.count = self.count, self.count + len(view_ids)
        if self.count > len(self.rows):
            room = max(min(2 * len(self.rows), self.capacity), self.count, min(FIRST_ROWS, self.capacity))
            self.rows, self.view_ids = _enlarged(self.rows, first, room), _enlarged(self.view_ids, first, room)
        self.rows[first : self.count] = values.to(self.rows.device, self.rows.dtype)
        self.view_ids[first : self.count] = view_ids
        self.row_of[view_ids] = torch.arange(first, self.count)

    @property
    def full(self) -> bool:
        return self.count >= self.capacity

    def save(self) -> None:
        """Append new rows to the files: rows first, so that no key lacks its row."""
        if not self.writes or self.saved == self.count:
            return
        raw = self.rows[self.saved : self.count].cpu().contiguous().view(torch.uint8).numpy()
        view_ids = self.view_ids[self.saved : self.count].numpy()
        entries = np.stack([view_ids, _mixed(_checksums(raw), view_ids)], 1)
        append(self.rows_file, self.saved * self.row_bytes, raw.tobytes())
        append(self.keys_file, self.saved * entries.itemsize * 2, entries.tobytes())
        self.saved = self.count


def _enlarged(values: Tensor, used: int, room: int) -> Tensor:
    larger = values.new_empty(room, *values.shape[1:])
    larger[:used] = values[:used]
    return larger


def _checksums(raw: np.ndarray) -> np.ndarray:
    """int64 [n] of uint8 [n, row bytes]: depends on the order, and is not 0 for zeros."""
    weights = np.arange(1, raw.shape[1] // 2 + 1)
    blocks = [raw[start : start + 65_536].view(np.uint16) for start in range(0, len(raw), 65_536)]  # small int64 copies
    return np.concatenate([np.empty(0, np.int64), *((block + np.int64(1)) @ weights for block in blocks)])


def _mixed(sums: np.ndarray, view_ids: np.ndarray) -> np.ndarray:
    """Checksums that a changed view id changes too."""
    return sums + (view_ids + 1) * SPREAD


class CachedTeacher:
    """A `Teacher` that looks up the outputs of numbered views in a `TeacherCache`; other images and depths it computes.

    parts: the cached ones, the first or both of PARTS. `forwards` counts the images that the network processed.
    """

    def __init__(self, teacher: Teacher, cache: TeacherCache, parts: tuple[str, ...], classes: int):
        self.teacher, self.cache, self.parts, self.classes = teacher, cache, parts, classes
        self.pads = cache.rows.device.type != "cpu"  # a GPU looks for the fastest kernels at each new size: keep few
        self.forwards = 0

    def __call__(self, view: Tensor, stop_at: str | None = None, view_ids: Tensor | None = None) -> Outputs:
        if stop_at is not None or view_ids is None:
            return self._compute(view, stop_at)
        missing = (self.cache.row_of[view_ids] < 0).nonzero()[:, 0]
        if len(missing) and self.cache.full:
            return self._compute(view)
        if len(missing):
            self.cache.add(view_ids[missing], self._rows(view, missing))
        rows = self.cache.rows.index_select(0, to_device(self.cache.row_of[view_ids], view.device))
        logits, embedding = rows[:, : self.classes], rows[:, self.classes :]
        return Outputs(logits, embedding if "embedding" in self.parts else None, NotKept())

    def _rows(self, view: Tensor, missing: Tensor) -> Tensor:
        """The cache's columns for the images at `missing` (int64 [n], on the CPU)."""
        chosen = missing
        if self.pads:
            chosen = F.pad(missing, (0, min(-len(missing) % SIZE_STEP, len(view) - len(missing))))
        images = (
            view if len(chosen) == len(view) == len(missing) else view.index_select(0, to_device(chosen, view.device))
        )
        outputs = self._compute(images)
        return torch.cat([getattr(outputs, part) for part in self.parts], 1)[: len(missing)]

    def _compute(self, view: Tensor, stop_at: str | None = None) -> Outputs:
        self.forwards += len(view)
        return self.teacher(view, stop_at=stop_at)


class NotKept(dict):
    """The feature maps of a teacher whose methods do not declare that they read them."""

    def __missing__(self, name: str):
        raise KeyError(f"{name}: the teacher's feature maps are not kept; add 'feature_maps' to the method's `reads`")


@contextlib.contextmanager
def cached_teacher(teacher: Teacher, data: Data, batches: Batches, read: set[str]) -> Iterator[CachedTeacher | Teacher]:
    """The teacher with the cache of the parts that are `read`, held against other processes.

    The teacher itself, and the reason on stderr, if maps are read, if nothing is (methods that mix images read
    no view), or if the views are not finitely many. A cache of logits and embeddings serves runs that read logits
    alone, too.
    """
    if reason := _reason_against(batches, read):
        inform(f"teacher cache: {reason}; the teacher runs live")
        yield teacher
        return
    image = torch.zeros(1, 3, data.image_size, data.image_size, device=batches.device)
    outputs = teacher(image)
    with contextlib.ExitStack() as stack:
        stem, parts = _cache_file(teacher, data, batches, read)
        width = sum(getattr(outputs, part).shape[1] for part in parts)
        writes = _lock(stack, stem.with_name(f"{stem.name}.lock"))
        view_count = batches.images * batches.teacher_recipe.views
        cache = TeacherCache(stem, view_count, width, teacher.dtype, batches.device, writes)
        yield CachedTeacher(teacher, cache, parts, outputs.logits.shape[1])


def _reason_against(batches: Batches, read: set[str]) -> str:
    if not read:
        return "this method mixes the images, which makes new ones in every step"
    if read - set(PARTS):
        return "this method reads maps of the teacher, which are too large to keep"
    if not batches.teacher_recipe.views:
        return f"augmentation = {batches.teacher_recipe} has more views than can be kept; crop and flip have 162"
    return ""


def _cache_file(teacher: Teacher, data: Data, batches: Batches, read: set[str]) -> tuple[Path, tuple[str, ...]]:
    """Path of the cache without extension, and its columns: the wider cache if it is needed or exists already."""
    facts = [teacher.sha256, data.content_hash, batches.images, data.mean, data.std, str(batches.teacher_recipe)]
    key = hashlib.sha256(repr([*facts, str(teacher.dtype), batches.device.type]).encode()).hexdigest()[:16]
    name = teacher.description.get("name", "teacher")
    stems = {n: artifacts.folder("outputs") / f"{name}-{key}-{'-'.join(PARTS[:n])}" for n in (1, 2)}
    count = 2 if "embedding" in read or stems[2].with_name(f"{stems[2].name}.keys").is_file() else 1
    return stems[count], PARTS[:count]


def _lock(stack: contextlib.ExitStack, path: Path) -> bool:
    try:
        stack.enter_context(artifacts.lock(path, wait=False))
    except BlockingIOError:
        inform(f"{path.stem}: another process fills it; its present rows are used")
        return False
    return True

"""What a frozen teacher says, kept: each view of an image is computed once, for every run that shares the table.

Crop and flip leave finitely many views of an image, 162 with 4 pixels of padding. A table has a row of the teacher's
outputs for each (sample, view) that was seen, in the precision that it was computed in: what is looked up is what the
teacher said, bit for bit. It lies beside the weights, under a name made of everything that its rows depend on.

Of a batch only the missing rows are computed. Convolutions in fp32 may round otherwise in a smaller batch, so that a
table filled by another seed may differ from the live teacher in the last digits.
"""

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdhelpers import artifacts
from kdhelpers.data import Batch, Batches, Data
from kdhelpers.device import free_memory, to_device
from kdhelpers.models import Outputs
from kdhelpers.training.teacher import Teacher

PARTS = ("logits", "embedding")  # what is kept of outputs; feature maps are too large
SHARE = 0.25  # of the free memory that a table may take
FIRST_ROWS = 4096


class TeacherCache:
    """Rows of outputs in the order in which their keys were first seen: in memory, and in two files that only grow.

    stem: the files' path without extension. keys: how many there can be. `writes` is False where another process holds
    the table: then it is read, and grows in memory alone. The files are believed as far as both are whole, so that a
    process killed while it writes costs that epoch's rows and no others; `.keys` has a checksum of each row.
    """

    def __init__(self, stem: Path, keys: int, width: int, dtype: torch.dtype, device: torch.device, writes: bool):
        self.rows_file, self.keys_file = (stem.with_name(f"{stem.name}.{kind}") for kind in ("rows", "keys"))
        self.place = torch.full((keys,), -1)  # key -> row, on the CPU: what is missing is known without the device
        self.keys = torch.empty(0, dtype=torch.int64)
        self.rows = torch.empty(0, width, dtype=dtype, device=device)
        self.count, self.row_bytes = 0, width * self.rows.itemsize
        self.most = int(SHARE * free_memory(device) // self.row_bytes)
        self.saved, self.writes = self._read(), writes
        self.writes &= self.saved == self.count

    def _read(self) -> int:
        """Take in what the files hold, as far as memory allows; how many rows they hold."""
        if not (self.rows_file.is_file() and self.keys_file.is_file()):
            return 0
        noted = np.fromfile(self.keys_file, np.int64)
        noted = noted[: len(noted) // 2 * 2].reshape(-1, 2)
        whole = min(len(noted), self.rows_file.stat().st_size // self.row_bytes)
        kept = min(whole, self.most)
        raw = np.fromfile(self.rows_file, np.uint8, kept * self.row_bytes).reshape(kept, -1)
        keys, sums = noted[:kept, 0], noted[:kept, 1]
        if not (((keys >= 0) & (keys < len(self.place))).all() and np.array_equal(sums, _checksums(raw))):
            raise ValueError(f"{self.keys_file}: damaged; delete it, and the teacher is asked again")
        self.add(torch.from_numpy(keys.copy()), torch.from_numpy(raw).view(self.rows.dtype))
        return whole

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Keep `values` [n, width] under new `keys` [n], which are on the CPU."""
        first, self.count = self.count, self.count + len(keys)
        if self.count > len(self.rows):
            room = max(min(2 * len(self.rows), self.most), self.count, min(FIRST_ROWS, self.most))
            self.rows, self.keys = _larger(self.rows, first, room), _larger(self.keys, first, room)
        self.rows[first : self.count] = values.to(self.rows.device, self.rows.dtype)
        self.keys[first : self.count] = keys
        self.place[keys] = torch.arange(first, self.count)

    @property
    def full(self) -> bool:
        return self.count >= self.most

    def save(self) -> None:
        """Append what is new: rows first, so that no key is without its row."""
        if not self.writes or self.saved == self.count:
            return
        raw = self.rows[self.saved : self.count].cpu().contiguous().view(torch.uint8).numpy()
        noted = np.stack([self.keys[self.saved : self.count].numpy(), _checksums(raw)], 1)
        artifacts.append(self.rows_file, self.saved * self.row_bytes, raw.tobytes())
        artifacts.append(self.keys_file, self.saved * noted.itemsize * 2, noted.tobytes())
        self.saved = self.count


def _larger(values: Tensor, used: int, room: int) -> Tensor:
    larger = values.new_empty(room, *values.shape[1:])
    larger[:used] = values[:used]
    return larger


def _checksums(raw: np.ndarray) -> np.ndarray:
    """int64 [n] of uint8 [n, row bytes]; no zeros have the sum 0, and the order counts."""
    weights = np.arange(1, raw.shape[1] // 2 + 1)
    parts = [raw[start : start + 65_536].view(np.uint16) for start in range(0, len(raw), 65_536)]  # an int64 copy each
    return np.concatenate([np.empty(0, np.int64), *((part + np.int64(1)) @ weights for part in parts)])


class CachedTeacher:
    """A `Teacher` that looks up what it said of a view before, for the views of the batch that it `begin_batch`s to.

    parts: what is kept, the first or both of PARTS; the outputs have nothing else. Asked about other images,
    or up to a feature map, it computes. `forwards` counts the images that the network really saw.
    """

    def __init__(self, teacher: Teacher, table: TeacherCache, parts: tuple[str, ...], classes: int):
        self.teacher, self.table, self.parts, self.classes = teacher, table, parts, classes
        self.described, self.sha256 = teacher.described, teacher.sha256
        self.batch: Batch | None = None
        self.forwards = 0

    def begin_batch(self, batch: Batch) -> None:
        self.batch = batch

    def __call__(self, view: Tensor, stop_at: str | None = None) -> Outputs:
        keys = self._keys(view)
        if stop_at is not None or keys is None:
            return self._compute(view, stop_at)
        missing = (self.table.place[keys] < 0).nonzero()[:, 0]
        if len(missing) and self.table.full:
            return self._compute(view)
        if len(missing):
            images = view if len(missing) == len(keys) else view.index_select(0, to_device(missing, view.device))
            said = self._compute(images)
            self.table.add(keys[missing], torch.cat([getattr(said, part) for part in self.parts], 1))
        rows = self.table.rows.index_select(0, to_device(self.table.place[keys], view.device))
        logits, embedding = rows[:, : self.classes], rows[:, self.classes :]
        return Outputs(logits, embedding if "embedding" in self.parts else None, {})

    def _keys(self, view: Tensor) -> Tensor | None:
        view_ids = self.batch.view_ids if self.batch else ()
        return next((keys for known, keys in view_ids if known is view), None)

    def _compute(self, view: Tensor, stop_at: str | None = None) -> Outputs:
        self.forwards += len(view)
        return self.teacher(view, stop_at=stop_at)


@contextlib.contextmanager
def cached_teacher(teacher: Teacher, data: Data, batches: Batches, read: set[str]) -> Iterator[CachedTeacher | Teacher]:
    """The teacher with the table of what is `read` of it, held against other processes; the teacher itself, and a line
    on stderr why, where feature maps are read or the augmentation's views are not finitely many.

    A table of logits and embeddings, once there, serves those who read logits alone too.
    """
    if obstacle := _obstacle(batches, read):
        print(f"stored outputs: {obstacle}; the teacher runs live", file=sys.stderr)
        yield teacher
        return
    image = torch.zeros(1, 3, data.image_size, data.image_size, device=batches.device)
    said = teacher(image)
    with contextlib.ExitStack() as held:
        stem, parts = _table_of(teacher, data, batches, read)
        width = sum(getattr(said, part).shape[1] for part in parts)
        writes = _held(held, stem.with_name(f"{stem.name}.lock"))
        keys = batches.images * batches.teacher_recipe.views
        table = TeacherCache(stem, keys, width, teacher.dtype, batches.device, writes)
        yield CachedTeacher(teacher, table, parts, said.logits.shape[1])


def _obstacle(batches: Batches, read: set[str]) -> str:
    if read - set(PARTS):
        return "this method reads the teacher's feature maps, which are too large to keep"
    if not batches.teacher_recipe.views:
        return f"augmentation = {batches.teacher_recipe} has more views than can be kept; crop and flip have 162"
    return ""


def _table_of(teacher: Teacher, data: Data, batches: Batches, read: set[str]) -> tuple[Path, tuple[str, ...]]:
    """The table's path without extension, and its columns: the wider table where it is needed or there already."""
    facts = [teacher.sha256, data.content_hash, batches.images, data.mean, data.std, str(batches.teacher_recipe)]
    key = hashlib.sha256(repr([*facts, str(teacher.dtype), batches.device.type]).encode()).hexdigest()[:16]
    stems = {n: artifacts.folder("outputs") / f"{_name(teacher)}-{key}-{'-'.join(PARTS[:n])}" for n in (1, 2)}
    count = 2 if "embedding" in read or stems[2].with_name(f"{stems[2].name}.keys").is_file() else 1
    return stems[count], PARTS[:count]


def _name(teacher: Teacher) -> str:
    return teacher.described.get("name", "teacher")


def _held(stack: contextlib.ExitStack, path: Path) -> bool:
    try:
        stack.enter_context(artifacts.lock(path, wait=False))
    except BlockingIOError:
        print(f"{path.stem}: another process fills it; what it holds now is used", file=sys.stderr)
        return False
    return True

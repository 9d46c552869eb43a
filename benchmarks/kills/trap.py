"""A trap in a child process: it counts each step at which files change, and kills, fails or slows the process there.

A step is one call of the operating system that changes a folder (open a file to write, rename, delete, make a folder),
half of a write, a truncation or an fsync. A process that ends at each step in turn has ended at every moment that
another process, or the next start, can tell apart.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
WRITING = os.O_WRONLY | os.O_RDWR
SLOW_SECONDS = 0.002


class Counts:
    """What a child counts, in memory that it shares with its parent: steps, and files that are open to be written."""

    def __init__(self):
        self._values = memoryview(mmap(-1, 24)).cast("q")

    @property
    def began(self) -> bool:
        """Whether the child's work has begun."""
        return self._values[2] > 0

    def begin(self) -> None:
        self._values[2] = 1

    @property
    def steps(self) -> int:
        return self._values[0]

    @property
    def inside_a_write(self) -> bool:
        """Whether the child, which is dead now, had a file open to be written."""
        return self._values[1] > 0

    def step(self) -> int:
        self._values[0] += 1
        return self._values[0]

    def opened(self, change: int) -> None:
        self._values[1] += change


@dataclass(frozen=True)
class Trap:
    """What happens at a step: `action(kind, path)` of its number, from the step `first` on."""

    root: str
    counts: Counts
    first: int
    action: Callable[[str, str], None]

    def step(self, kind: str, path: object) -> None:
        inside = isinstance(path, bytes | str | os.PathLike) and os.fsdecode(path).startswith(self.root)
        if inside and self.counts.step() >= self.first:
            self.action(kind, os.fsdecode(path))

    def set(self) -> None:
        """For the rest of this process's life."""
        sys.addaudithook(self._audit)
        os.fsync = self._fsync(os.fsync)
        builtins.open = io.open = self._open(io.open)
        self.counts.begin()

    def _audit(self, event: str, arguments: tuple) -> None:
        if event == "open" and arguments[2] & WRITING:
            self.step("open", arguments[0])
        elif event in CHANGES:
            self.step(event.removeprefix("os."), arguments[0])

    def _fsync(self, fsync: Callable[[int], None]) -> Callable[[int], None]:
        def trapped(descriptor: int) -> None:
            self.step("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        return trapped

    def _open(self, opened: Callable) -> Callable:
        """`open`, whose binary files write in two halves."""

        def trapped(file, mode="r", buffering=-1, *rest, **options):
            if "b" not in mode or mode == "rb" or isinstance(file, int):
                return opened(file, mode, buffering, *rest, **options)
            kind = HalfWriter if "+" not in mode else HalfRandom
            return kind(opened(file, mode, 0), self)

        return trapped


class _Halves:
    """A binary file whose every write is a half, a step, and the other half."""

    def __init__(self, raw: io.FileIO, trap: Trap):
        super().__init__(raw)
        self._trap = trap
        trap.counts.opened(1)

    def write(self, content) -> int:
        content = memoryview(content).cast("B")
        super().write(content[: len(content) // 2])
        self.flush()
        self._trap.step("write", self.name)
        super().write(content[len(content) // 2 :])
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        self._trap.step("truncate", self.name)
        return super().truncate(size)

    def close(self) -> None:
        if not self.closed:
            self._trap.counts.opened(-1)
        super().close()


class HalfWriter(_Halves, io.BufferedWriter):
    """Of mode wb or ab."""


class HalfRandom(_Halves, io.BufferedRandom):
    """Of mode r+b, w+b or a+b."""


def kill(kind: str, path: str) -> None:
    """SIGKILL for this process, now."""
    os.kill(os.getpid(), signal.SIGKILL)


def slow(kind: str, path: str) -> None:
    """Widen the moment, so that a kill at a random time may hit it."""
    time.sleep(SLOW_SECONDS)


def full(kind: str, path: str) -> None:
    """A full disk takes no byte and no new file; it still deletes and renames."""
    if kind in ("write", "fsync", "mkdir") or (kind == "open" and not os.path.exists(path)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def read_only(kind: str, path: str) -> None:
    """A folder that was mounted read-only: nothing in it changes any more."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def denied(kind: str, path: str) -> None:
    """A folder whose permissions were taken away: open files can be written, folders cannot change."""
    if kind not in ("write", "fsync", "truncate"):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)

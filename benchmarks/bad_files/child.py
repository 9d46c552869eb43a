"""Reads damaged files in forked children under limits, so that a crash or a hang costs one input and is noticed.

The parent kills a child that computes or waits for too long, and starts another at the next input.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.bad_files.judge import OUTSIDE, SECRET, judged, watch
from benchmarks.bad_files.mutate import damage
from kdhelpers.data.readers import memory

SECONDS, SILENT = 10.0, 60.0  # of the processor, that an input may take; without a word, on a busy machine
ADDRESSES = 2 << 30  # bytes that a child may map beyond what it has at its start
FREE = 128 << 20  # bytes that the readers find free
MOST_FAULTS = 100  # of a reader
TRACE = "trace"


@dataclass(frozen=True)
class Reader:
    """`prepare` writes whole files below a folder and returns those that are damaged; `read` gets the folder and one.

    forge: (random, path, its content) -> another content, of the right format and with wrong values. reads: whether it
    reads whole files.
    """

    name: str
    prepare: Callable[[Path], Sequence[Path]]
    read: Callable[[Path, Path], object]
    forge: Callable[[Random, Path, bytes], bytes] | None = None
    reads: bool = True


@dataclass
class Result:
    """The inputs of a reader: how many were read, how many were refused, and the faults."""

    name: str
    read: int = 0
    refused: int = 0
    faults: list[dict] = field(default_factory=list)
    seconds: float = 0.0  # of the slowest input
    grown: int = 0  # bytes, of the input that took most memory

    @property
    def tried(self) -> int:
        return self.read + self.refused + len(self.faults)


def try_readers(readers: Sequence[Reader], count: int, seed: int = 0, processes: int = 1) -> Iterator[Result]:
    """`count` damaged inputs for each reader; input k of a reader is the same in every run of the same seed."""
    waiting, active = [_Supervised(reader, count, seed) for reader in readers], []
    while waiting or active:
        while waiting and len(active) < processes:
            active.append(waiting.pop(0).start())
        ready, _, _ = select.select([each.pipe for each in active], [], [], 0.2)
        for each in list(active):
            if not each.follow(each.pipe in ready):
                active.remove(each)
                yield each.result


class _Supervised:
    """A reader, and the child that tries its inputs now."""

    def __init__(self, reader: Reader, count: int, seed: int):
        self.reader, self.count, self.seed = reader, count, seed
        self.result, self.next = Result(reader.name), 0

    def start(self) -> _Supervised:
        self.folder = tempfile.mkdtemp(prefix="kd-bad-files-")
        self.pipe, theirs = os.pipe()
        self.process, self.rest, self.started = os.fork(), b"", False
        if not self.process:
            os.close(self.pipe)
            _be_child(self.reader, range(self.next, self.count), self.seed, Path(self.folder), theirs)
        os.close(theirs)
        self._mark()
        return self

    def _mark(self) -> None:
        """The time from which an input counts."""
        self.since, (_, self.used) = time.monotonic(), _state(self.process)

    def follow(self, ready: bool) -> bool:
        """Take what the child has written. False when all inputs are done."""
        chunk = os.read(self.pipe, 1 << 16) if ready else None
        if chunk:
            *lines, self.rest = (self.rest + chunk).split(b"\n")
            for line in lines:
                self._take(json.loads(line)) if line else None  # the first is empty: whole files were read
            self.started = True
            self._mark()
        elif chunk is None and not self._is_stuck():
            return True
        else:
            return self._ended("hang" if chunk is None else "crash")
        return True

    def _is_stuck(self) -> bool:
        """Whether it has computed or waited for too long."""
        state, used = _state(self.process)
        sleeps = state == "S" and time.monotonic() - self.since > SILENT  # else it only has no processor
        return self.started and (used - self.used > SECONDS or sleeps)

    def _take(self, line: dict) -> None:
        result, self.next = self.result, line["number"] + 1
        result.seconds, result.grown = max(result.seconds, line["seconds"]), max(result.grown, line["grown"])
        if line["outcome"] == "read":
            result.read += 1
        elif line["outcome"] == "refused":
            result.refused += 1
        else:
            result.faults.append(line)

    def _ended(self, outcome: str) -> bool:
        """The child has ended or is silent. True if another continues."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        _, status = os.waitpid(self.process, 0)
        os.close(self.pipe)
        where = _innermost(Path(self.folder) / TRACE)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.next >= self.count:
            return False
        text = f"exit status {os.waitstatus_to_exitcode(status)} {where}"
        self.result.faults.append({"number": self.next, "outcome": outcome, "text": text})
        self.next += 1
        if self.next < self.count and len(self.result.faults) < MOST_FAULTS:
            self.start()
            return True
        return False


def _state(process: int) -> tuple[str, float]:
    """Whether it runs or sleeps (R, S, ...), and the seconds of the processor that it has used."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return "", 0.0


def _innermost(trace: Path) -> str:
    """The line of the package in which a child that was silent or crashed was."""
    lines = trace.read_text(errors="replace").splitlines() if trace.is_file() else []
    found = [re.sub('.*/(.*)", line', r"\1", line) for line in lines if "kdhelpers/" in line or "bad_files/" in line]
    return f"({found[0].strip()})" if found else ""


def _be_child(reader: Reader, numbers: range, seed: int, folder: Path, pipe: int) -> None:
    """Never returns."""
    try:
        sys.stdout = sys.stderr = said = io.StringIO()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries in C print
        warnings.simplefilter("ignore")
        for line in _lines(reader, numbers, seed, folder, said):
            os.write(pipe, (json.dumps(line) if line else "").encode() + b"\n")
        os._exit(0)
    except BaseException:
        line = {"number": numbers.start, "outcome": "harness", "text": traceback.format_exc()[-2000:]}
        os.write(pipe, json.dumps(line | {"seconds": 0, "grown": 0}).encode() + b"\n")
        os._exit(1)


def _lines(reader: Reader, numbers: range, seed: int, folder: Path, said: io.StringIO) -> Iterator[dict]:
    root = folder / "root"
    os.environ |= {"KD_ROOT": str(root), "KD_DATA": str(root / "data"), "TORCHINDUCTOR_CACHE_DIR": str(root / "torch")}
    for each in (root / "data", folder / OUTSIDE):
        each.mkdir(parents=True)
    (folder / OUTSIDE / "secret.png").write_bytes(SECRET)
    os.chdir(root)
    whole = {path: path.read_bytes() for path in reader.prepare(root)}
    for path in whole:  # what this imports belongs to no input
        with contextlib.suppress(() if reader.reads else ValueError):
            reader.read(root, path)
    memory._of_machine = lambda: FREE
    mapped = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESSES,) * 2)
    seen, trace = watch(folder), (folder / TRACE).open("w")
    faulthandler.enable(trace)
    yield {}
    for number in numbers:
        random = Random(f"{seed} {reader.name} {number}")
        path = random.choice(list(whole))
        damage(random, path, whole, reader.forge)
        said.seek(0), said.truncate(), trace.seek(0), trace.truncate()
        faulthandler.dump_traceback_later(0.8 * SECONDS, repeat=True, file=trace)
        yield {"number": number, **judged(partial(reader.read, root, path), root, said, seen)}
        _restore(path, whole[path])
        shutil.rmtree(root / "data/.cache", ignore_errors=True)


def _restore(path: Path, content: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

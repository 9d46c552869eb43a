"""Reads damaged files in forked children under limits, so that a crash or a hang costs one input and is noticed.

A child has a limit on memory, an audit hook that sees code being run, and a folder outside which it may not write. The
parent kills a child that is silent for too long, and starts another at the next input.
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
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.bad_files.mutate import damage
from kdhelpers.data.readers import memory

SECONDS, SILENT = 10.0, 60.0  # of the processor, that an input may take; without a word, on a busy machine
ADDRESSES = 2 << 30  # bytes that a child may map beyond what it has at its start
RESIDENT = 256 << 20  # bytes by which its resident set may grow during an input
FREE = 128 << 20  # bytes that the readers find free
LONGEST = 1000  # characters of a message
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn")
TALKS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request")
WRITES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "shutil.rmtree", "os.chmod")
CANARY = "kd_canary"  # a module that only a hostile file names
TRACE = "trace"
OUTSIDE = "outside"  # a folder with a secret, next to that of the reader


@dataclass(frozen=True)
class Reader:
    """`prepare` writes whole files below a folder and returns those that are damaged; `read` reads them.

    forge: (random, path, its content) -> another content, of the right format and with wrong values.
    """

    name: str
    prepare: Callable[[Path], Sequence[Path]]
    read: Callable[[Path], object]
    forge: Callable[[Random, Path, bytes], bytes] | None = None


@dataclass
class Result:
    """The inputs of a reader: how many were read, how many were refused, and the faults."""

    name: str
    read: int = 0
    refused: int = 0
    faults: list[dict] | None = None
    seconds: float = 0.0  # of the slowest input
    grown: int = 0  # bytes, of the input that took most memory

    @property
    def tried(self) -> int:
        return self.read + self.refused + len(self.faults or [])


def try_readers(readers: Sequence[Reader], count: int, seed: int = 0, processes: int = 1) -> list[Result]:
    """`count` damaged inputs for each reader; input k of a reader is the same in every run of the same seed."""
    waiting = [_Supervised(reader, count, seed) for reader in readers]
    done, active = list(waiting), []
    while waiting or active:
        while waiting and len(active) < processes:
            active.append(waiting.pop(0).start())
        ready, _, _ = select.select([each.pipe for each in active], [], [], 0.2)
        for each in list(active):
            if not each.follow(each.pipe in ready):
                active.remove(each)
    return [each.result for each in done]


class _Supervised:
    """A reader, and the child that tries its inputs now."""

    def __init__(self, reader: Reader, count: int, seed: int):
        self.reader, self.count, self.seed = reader, count, seed
        self.result, self.next = Result(reader.name, faults=[]), 0

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
        self.since, self.used = time.monotonic(), _processor_seconds(self.process)

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
        used = _processor_seconds(self.process) - self.used
        return self.started and (used > SECONDS or time.monotonic() - self.since > SILENT)

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
        if self.next < self.count and len(self.result.faults) < 100:
            self.start()
            return True
        return False


def _processor_seconds(process: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


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
    os.environ |= {"KD_ROOT": str(root), "KD_DATA": str(root / "data")}
    for each in (root / "data", folder / OUTSIDE):
        each.mkdir(parents=True)
    (folder / OUTSIDE / "secret.png").write_bytes(b"\x89PNG secret")
    os.chdir(root)
    whole = {path: path.read_bytes() for path in reader.prepare(root)}
    reader.read(root)  # whole files; what it imports belongs to no input
    _restore(root, whole)
    memory._of_machine = lambda: FREE
    mapped = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESSES,) * 2)
    seen, trace = _watch(folder), (folder / TRACE).open("w")
    faulthandler.enable(trace)
    yield {}
    for number in numbers:
        random = Random(f"{seed} {reader.name} {number}")
        path = random.choice(list(whole))
        damage(random, path, whole, reader.forge)
        said.seek(0), said.truncate(), trace.seek(0), trace.truncate()
        faulthandler.dump_traceback_later(0.8 * SECONDS, repeat=True, file=trace)
        yield {"number": number, **_read_one(reader, root, said, seen)}
        _restore(root, whole)


def _restore(root: Path, whole: dict[Path, bytes]) -> None:
    shutil.rmtree(root / "data/.cache", ignore_errors=True)
    for path, content in whole.items():
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _read_one(reader: Reader, root: Path, said: io.StringIO, seen: _Seen) -> dict:
    before, start, error = _resident(reset=True), time.process_time(), None
    try:
        with seen:
            reader.read(root)
    except Exception as raised:
        error = raised
    seconds, grown = time.process_time() - start, max(0, _resident("VmHWM") - before)
    outcome, text = "refused" if error else "read", str(error)[:300]
    for kind, found in (
        ("code", "; ".join(seen)),
        ("slow", f"{seconds:.1f} s" * (seconds > SECONDS / 2)),
        ("memory", f"{grown >> 20} MiB" * (grown > RESIDENT) or _asked_for_too_much(error)),
        ("error", _fault_of(error, root) if error else ""),
        ("output", _odd(re.sub("[\r\n]", "", said.getvalue()))),
    ):
        if found:
            outcome, text = kind, found
            break
    return {"outcome": outcome, "text": text, "seconds": round(seconds, 3), "grown": grown}


def _resident(field: str = "VmRSS", reset: bool = False) -> int:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


def _asked_for_too_much(error: BaseException | None) -> str:
    """The text of a refusal by the system on the way to the error."""
    while error:
        if isinstance(error, MemoryError) or re.search(
            "can't allocate memory|Unable to allocate|bad_alloc", str(error)
        ):
            return f"more than {ADDRESSES >> 30} GiB: {type(error).__name__}: {error} {_place(error)}"
        error = error.__cause__ or error.__context__
    return ""


def _fault_of(error: Exception, root: Path) -> str:
    """What is wrong with an error; "" for one line of the right type that names the file and the remedy."""
    text, fault = str(error), ""
    if not isinstance(error, ValueError | OSError):
        fault = type(error).__name__
    elif "\n" in text:
        fault = "several lines"
    elif _odd(text):
        fault = _odd(text)
    elif len(text) > LONGEST:
        fault = f"{len(text)} characters"
    elif str(root) not in text:
        fault = "without the path"
    elif "; " not in text and not (isinstance(error, OSError) and error.filename):
        fault = "without a remedy"
    return f"{fault}: {type(error).__name__}: {text[:200]} {_place(error)}" if fault else ""


def _odd(text: str) -> str:
    """A character that a terminal obeys, or that turns the direction of a text."""
    found = re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    return f"prints {found[0]!r}: {ascii(text[:200])}" if found else ""


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "kdhelpers" in frame.filename]
    return f"({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


class _Seen(list):
    """What was done, in the block `with seen`, that a reader must never do."""

    active = False

    def __enter__(self) -> None:
        self.clear()
        self.active = True

    def __exit__(self, *_) -> None:
        self.active = False


def _watch(folder: Path) -> _Seen:
    """The list to which an audit hook appends."""
    seen, inside, secret = _Seen(), str(folder / "root"), str(folder / OUTSIDE)

    def hook(event: str, arguments: tuple) -> None:
        if not seen.active:
            return
        if event in RUNS or event in TALKS or (event == "import" and CANARY in str(arguments[0])):
            seen.append(f"{event} {str(arguments)[:100]}")
        elif event == "open" or event in WRITES:
            path = arguments[0] if isinstance(arguments[0], str | bytes | os.PathLike) else ""
            path = os.path.realpath(os.fsdecode(path)) if path else inside
            writes = event != "open" or (len(arguments) > 2 and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))
            if path.startswith(secret) or (writes and not path.startswith((inside, "/dev/null", "/proc/self"))):
                seen.append(f"{event} {path}")

    sys.addaudithook(hook)
    return seen

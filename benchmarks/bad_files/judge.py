"""What a reader did with one input: read it, refused it, or a fault.

An audit hook sees code being run, a connection, a file that is written outside the reader's folder, and the secret of a
folder next to it being opened.
"""

from __future__ import annotations

import io
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

SLOW = 5.0  # seconds of the processor
RESIDENT = 256 << 20  # bytes by which the resident set may grow during an input
LONGEST = 1000  # characters of a message
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn")
TALKS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request")
WRITES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "shutil.rmtree", "os.chmod")
CANARY = "kd_canary"  # a module that only a hostile file names
OUTSIDE = "outside"  # a folder with a secret, next to that of the reader
SECRET = b"\x89PNG secret"  # the content of a file there


def judged(read: Callable[[], object], root: Path, said: io.StringIO, seen: Seen) -> dict:
    """The outcome, the text of the error or fault, seconds of the processor, bytes grown."""
    before, start, error = _resident(reset=True), time.process_time(), None
    try:
        with seen:
            read()
    except Exception as raised:
        error = raised
    seconds, grown = time.process_time() - start, max(0, _resident("VmHWM") - before)
    outcome, text = "refused" if error else "read", str(error)[:300]
    for kind, found in (
        ("code", "; ".join(seen)),
        ("slow", f"{seconds:.1f} s" * (seconds > SLOW)),
        ("memory", f"{grown >> 20} MiB" * (grown > RESIDENT) or _asked_for_too_much(error)),
        ("error", fault_of(error, root) if error else ""),
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
        frames = traceback.extract_tb(error.__traceback__)
        parser = bool(frames) and frames[-1].name == "parse"  # of Python: MemoryError means more levels than its stack
        if (isinstance(error, MemoryError) and not parser) or re.search(
            "can't allocate memory|Unable to allocate|bad_alloc", str(error)
        ):
            return f"asked for too much: {type(error).__name__}: {error} {_place(error)}"
        error = error.__cause__ or error.__context__
    return ""


def fault_of(error: Exception, root: Path) -> str:
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


class Seen(list):
    """What was done, in the block `with seen`, that a reader must never do."""

    active = False

    def __enter__(self) -> None:
        self.clear()
        self.active = True

    def __exit__(self, *_) -> None:
        self.active = False


def watch(folder: Path) -> Seen:
    """The list to which an audit hook appends."""
    seen, inside, secret = Seen(), str(folder / "root"), str(folder / OUTSIDE)

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

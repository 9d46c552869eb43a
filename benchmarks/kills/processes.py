"""Child processes that start warm: forks of this process, which has imported everything and started no thread."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kills import stored
from benchmarks.kills.trap import Counts, Trap, kill

WAIT_SECONDS = 300  # after which a child counts as hung
POLL_SECONDS = 0.002
NEVER = 1 << 62


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    output: what it printed; error: the line of it that the command line would print. before: the faults that it found
    in its root before its work; after, bits: what it found there after it. inside: it was killed within a write.
    """

    code: int
    output: str
    steps: int
    inside: bool
    seconds: float
    before: list[str]
    after: list[str] | None
    bits: dict[str, str] | None

    @property
    def error(self) -> str:
        lines = reversed(self.output.splitlines())
        return next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass(frozen=True)
class Child:
    pid: int
    log: Path
    counts: Counts

    def wait_until_it_works(self) -> None:
        while not self.counts.began:
            time.sleep(POLL_SECONDS)

    def kill_after(self, seconds: float) -> Ended:
        """SIGKILL so many seconds after its work began, unless it has ended by then."""
        while not self.counts.began:
            if status := self._ended():
                return self._result(*status, 0)
            time.sleep(POLL_SECONDS)
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            if status := self._ended():
                return self._result(*status, time.monotonic() - began)
            time.sleep(POLL_SECONDS)
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self) -> Ended:
        began = time.monotonic()
        while not (status := self._ended()):
            if time.monotonic() > began + WAIT_SECONDS:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"{self.log}: a child hangs for {WAIT_SECONDS} s")
            time.sleep(POLL_SECONDS)
        return self._result(*status, time.monotonic() - began)

    def _ended(self) -> tuple[int] | None:
        process, status = os.waitpid(self.pid, os.WNOHANG)
        return (os.waitstatus_to_exitcode(status),) if process else None

    def _result(self, code: int, seconds: float) -> Ended:
        answers = [json.loads(line) for line in self.log.with_suffix(".answer").read_text().splitlines()]
        before, (after, bits) = answers[0] if answers else [], answers[1] if len(answers) > 1 else (None, None)
        output = self.log.read_text(errors="replace")
        return Ended(code, output, self.counts.steps, self.counts.inside_a_write, seconds, before, after, bits)


def start(
    work: Callable[[], None],
    root: Path,
    first: int = NEVER,
    action: Callable[[str, str], None] = kill,
    name: str = "child",
) -> Child:
    """Fork a child that reads `root` back, does `work` with it as its artifacts' root, and reads it back again.

    At the step `first` of the work, and at those after it, comes the `action`. Its log has the `name`.
    """
    counts, log = Counts(), root.with_name(f"{name}.log")
    log.with_suffix(".answer").write_text("")
    if not (pid := os.fork()):
        _child(work, Trap(f"{root}{os.sep}", counts, first, action), root, log)
    return Child(pid, log, counts)


def _child(work: Callable[[], None], trap: Trap, root: Path, log: Path) -> None:
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["KD_ROOT"] = str(root)
        _answer(log, stored.faults(root))
        trap.set()
        work()
        _answer(log, [stored.faults(root), stored.bits(root)])
        code = 0
    except BaseException as error:
        traceback.print_exc()
        print(f"error: {error}" if isinstance(error, OSError | ValueError) else f"error: {error!r}", flush=True)
    finally:
        os._exit(code)


def _answer(log: Path, content: list) -> None:
    with log.with_suffix(".answer").open("a") as file:
        file.write(json.dumps(content) + "\n")


def run(work: Callable[[], None], root: Path, **options) -> Ended:
    return start(work, root, **options).wait()


@contextlib.contextmanager
def copy_of(template: Path) -> Iterator[Path]:
    """A folder with the template's content, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as folder:
        root = Path(folder) / "root"
        shutil.copytree(template, root, symlinks=True)
        yield root

"""The processes of a job: its own, its kernel, and all that the notebook starts."""

import contextlib
import ctypes
import sys
import time

import psutil  # comes with ipykernel

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl
TRIES, PAUSE = 100, 0.05  # a process may start another one while the first ones are ended


def adopt_orphans() -> None:
    """From now on a descendant whose parent ends becomes a child of this process, so that `end_children` finds it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def end_children(process: int | None = None) -> None:
    """Kill all descendants of a process, by default of this one, until none is left."""
    for _ in range(TRIES):
        if not (children := _children(process)):
            return
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        time.sleep(PAUSE)


def end_family(process: int) -> None:
    """Kill a process and its descendants."""
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(process)
        parent.suspend()  # it starts nothing more
        end_children(process)
        parent.kill()


def _children(process: int | None) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [child for child in psutil.Process(process).children(recursive=True) if _is_alive(child)]
    return []


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE  # its parent has not asked for its exit code
    return False

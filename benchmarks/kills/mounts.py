"""A real small disk: a tmpfs in a mount namespace of a child process, which vanishes with it. Linux alone."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

NEW_USER, NEW_MOUNTS, REMOUNT = 0x10000000, 0x00020000, 32


def own_namespace() -> None:
    """Let this process, which has one thread, mount. Raises OSError where that is not allowed."""
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", NEW_USER | NEW_MOUNTS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def mount_small(folder: Path, kib: int) -> None:
    _call("mount", b"none", os.fsencode(folder), b"tmpfs", 0, f"size={kib}k".encode())


def enlarge(folder: Path) -> None:
    _call("mount", b"none", os.fsencode(folder), b"tmpfs", REMOUNT, b"size=64m")


def _call(name: str, *arguments) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")

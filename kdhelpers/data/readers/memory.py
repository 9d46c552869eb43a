"""How much memory is free, and which image size fits into it."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes that this process can still have: of the machine, or of its container; None if the system is unknown."""
    limits = [free for free in (_of_machine(), _of_container()) if free is not None]
    return min(limits, default=None)


def _of_machine() -> int | None:
    try:
        import psutil  # comes with ipykernel

        return psutil.virtual_memory().available
    except ImportError:
        pass
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


def _of_container() -> int | None:
    """Version 2 of Linux's control groups. Its file cache counts as free."""
    try:
        most = int((GROUP / "memory.max").read_text())
        used = int((GROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        return max(0, most - used + int(statistics.get("inactive_file", 0)))
    except (OSError, ValueError):  # "max": no limit
        return None


def fitting_size(free: int, values_per_pixel: int) -> int:
    """The largest side, a multiple of 8, whose images fit."""
    return max(8, int((free / values_per_pixel) ** 0.5) // 8 * 8)

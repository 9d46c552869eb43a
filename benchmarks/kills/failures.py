"""Full and read-only disks: at each step of a case in turn the disk fails, and fails on; then it is well again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.kills import mounts, stored
from benchmarks.kills.harness import Prepared, Tally, restarted
from benchmarks.kills.processes import copy_of, run

REMEDIES = ("free some space", "correct its permissions", "another process")


def fail_at(ready: Prepared, steps: Iterable[int], action: Callable[[str, str], None]) -> Tally:
    """From each of the steps on, the disk fails a start of the case; the next start finds it well.

    A start that ends well all the same had written what counts. `kills` counts the starts that failed.
    """
    tally = Tally()
    for step in steps:
        with copy_of(ready.template) as root:
            before = stored.bits(root)
            failed = run(ready.case.work, root, first=step, action=action)
            place = f"{action.__name__} from step {step} on"
            if failed.code:
                tally.kills += 1
                tally.faults += [f"{place}: {text}" for text in _unclear(failed.error, str(root))]
                tally.faults += [f"{place}: exit code {failed.code}"] * (failed.code != 1)
            touched = [path for path, bits in stored.bits(root).items() if before.get(path, bits) != bits]
            tally.faults += [f"{place}: {path} was changed" for path in touched if not _is_rewritten(path)]
            tally.faults += ready.faults_of(restarted(ready, root), place)
    return tally


def _unclear(error: str, root: str) -> list[str]:
    """What the error lacks: a file of the root, or the remedy."""
    wrong = [] if re.search(rf"{re.escape(root)}\S", error) else ["names no file"]
    wrong += [] if any(remedy in error for remedy in REMEDIES) else ["names no remedy"]
    return [f"{text}: {error!r}" for text in wrong]


def _is_rewritten(path: str) -> bool:
    """Whether the file is of the case's own present state, not an earlier result."""
    return "checkpoints/" in path or path.endswith((".keys", ".rows"))


def fill_small_disks(ready: Prepared, sizes: Iterable[int]) -> Tally:
    """Start a case on a real disk of each size (KiB), then again on the same one, enlarged. `kills`: those it filled.

    Raises OSError where a process may not mount.
    """
    tally = Tally()
    for kib in sizes:
        with copy_of(ready.template) as root:
            ended = run(lambda kib=kib, root=root: _on_small_disk(ready, root, kib), root)
            if "unshare:" in ended.error or "mount:" in ended.error:
                raise OSError(ended.error)
            place = f"a disk of {kib} KiB"
            if "No space left" in ended.output:
                tally.kills += 1
                tally.faults += [f"{place}: {text}" for text in _unclear(ended.error, str(root))]
            tally.faults += ready.faults_of(ended, place)
    return tally


def _on_small_disk(ready: Prepared, root: Path, kib: int) -> None:
    content = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    assert not content, "the case has a root that is empty before"
    mounts.own_namespace()
    mounts.mount_small(root, kib)
    try:
        ready.case.work()
    except OSError as error:
        print(f"error: {error}", flush=True)
    mounts.enlarge(root)
    ready.case.work()

"""Full and read-only disks: at each step of a case in turn the disk fails, and fails on; then it is well again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from benchmarks.kills import stored
from benchmarks.kills.harness import Prepared, Tally, restarted
from benchmarks.kills.processes import Ended, copy_of, run

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
                tally.inside += failed.inside
                tally.faults += [f"{place}: {text}" for text in _unclear(failed, str(root))]
            touched = [path for path, bits in stored.bits(root).items() if before.get(path, bits) != bits]
            tally.faults += [f"{place}: {path} was changed" for path in touched if not _is_rewritten(path)]
            tally.faults += ready.faults_of(restarted(ready, root), place)
    return tally


def _unclear(failed: Ended, root: str) -> list[str]:
    """What the error lacks: a file of the root, the remedy, an end in order."""
    wrong = [] if failed.code == 1 else [f"exit code {failed.code}"]
    if not re.search(rf"{re.escape(root)}\S", failed.error):
        wrong.append(f"names no file: {failed.error!r}")
    if not any(remedy in failed.error for remedy in REMEDIES):
        wrong.append(f"names no remedy: {failed.error!r}")
    return wrong


def _is_rewritten(path: str) -> bool:
    """Whether the file is of the case's own present state, not an earlier result."""
    return "checkpoints/" in path or path.endswith((".keys", ".rows"))

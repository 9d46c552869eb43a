"""A clock that jumps while a job runs: by a year, forward or back."""

from __future__ import annotations

import datetime as standard
import time
from collections.abc import Callable

from benchmarks.kills.harness import Prepared, restarted
from benchmarks.kills.processes import copy_of, run
from benchmarks.kills.trap import kill
from kdhelpers.report.gallery import write_gallery
from kdhelpers.training import record

YEAR = 365 * 86_400.0


def jump(ready: Prepared, years: int) -> list[str]:
    """The faults of a case whose clock jumps after its first look at it, of its restart after a kill, and of pages."""
    faults = []
    with copy_of(ready.template) as root:
        whole = run(lambda: _jumping(ready.case.work, years), root)
        faults += ready.faults_of(whole, "the clock jumps")
        pages = run(write_gallery, root)
        faults += [f"the gallery after it: {text}" for text in [*([pages.error] * (pages.code != 0)), *pages.before]]
    with copy_of(ready.template) as root:
        run(lambda: _jumping(ready.case.work, years), root, first=ready.steps * 2 // 3, action=kill)
        faults += ready.faults_of(restarted(ready, root), "the clock jumps, a kill, and jumps back")
    return faults


def _jumping(work: Callable[[], None], years: int) -> None:
    """In a child: `work` by a clock that is right once."""
    real, looks = time.time, iter(range(1 << 62))
    time.time = lambda: real() + years * YEAR * min(next(looks), 1)

    class Clock(standard.datetime):
        @classmethod
        def now(cls, zone=None):
            return standard.datetime.fromtimestamp(time.time(), zone)

    record.datetime = Clock
    work()

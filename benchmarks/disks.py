"""Disks that fail and clocks that jump while a job writes: a clear error, earlier files as they were, the same bits.

The jobs are those of `benchmarks.kills`. From a step on, the disk is full, read-only, or its folder denied, which
`benchmarks.kills.trap` makes of the calls of the operating system; small real disks are mounted where that is allowed.
Then the disk is well again, and the next start must end with the bits of a job that met no fault.
"""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.kills import all_cases, in_processes, result
from benchmarks.kills.cases import Case
from benchmarks.kills.clocks import jump
from benchmarks.kills.failures import fail_at, fill_small_disks
from benchmarks.kills.harness import Prepared, prepared
from benchmarks.kills.trap import denied, full, read_only
from benchmarks.measure import note

EVERY = 9  # one in so many steps of a case, from another one for each fault
SIZES = (4, 40, 200, 440, 600)  # KiB; the cases leave up to 0.7 MB
NAMES = {full: "full", read_only: "read-only", denied: "denied"}


def run(threads: int = 1) -> list[dict]:
    """A row per job and kind of fault."""
    torch.set_num_threads(threads)
    with all_cases() as every:
        return sum(in_processes([partial(_rows, case) for case in every]), [])


def _rows(case: Case) -> list[dict]:
    with prepared(case) as ready:
        return _rows_of(ready)


def _rows_of(ready: Prepared) -> list[dict]:
    rows, name = [], ready.case.name
    for first, (action, word) in enumerate(NAMES.items(), 1):
        tally = fail_at(ready, range(first, ready.steps + 1, EVERY), action)
        rows.append(result(f"{name}: disk {word} from {tally.kills} steps on", tally.faults))
    if ready.case.key in ("training", "download", "data set"):
        try:
            tally = fill_small_disks(ready, SIZES)
            rows.append(result(f"{name}: {tally.kills} real disks of {min(SIZES)} to {max(SIZES)} KiB", tally.faults))
        except OSError as error:
            note(f"real disks are left out: {error}")
    if ready.case.key in ("training", "lockstep", "tuning", "suite"):
        for years in (-1, 1):
            rows.append(result(f"{name}: the clock jumps by {years:+} year", jump(ready, years)))
    return rows

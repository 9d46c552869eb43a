"""Two processes that do the same job in the same root at once: it is done once, and ends with the same bits."""

from __future__ import annotations

from benchmarks.kills import processes, stored
from benchmarks.kills.harness import Prepared
from benchmarks.kills.processes import Ended
from benchmarks.kills.trap import slow

SECONDS = 0.3  # after which the second one starts


def together(ready: Prepared, killed: bool = False) -> tuple[list[str], Ended, Ended]:
    """Start the case twice. killed: the first process is killed meanwhile. Returns the faults, and how both ended."""
    with processes.copy_of(ready.template) as root:
        first = processes.start(ready.case.work, root, first=1, action=slow, name="first")
        first.wait_until_it_works()
        second = processes.start(ready.case.work, root, name="second")
        ends = first.kill_after(SECONDS if killed else processes.WAIT_SECONDS), second.wait()
        with_code = [end for end in ends if end.code == 0]
        bits = stored.bits(root)
    different = [path for path in stored.differences(ready.bits, bits) if not (killed and ".tmp" in path)]
    return ["neither process ended well"] * (not with_code) + different, *ends


def trainings(ready: Prepared, killed: bool) -> list[str]:
    """The faults of two trainings of one run: one of both trains, the other waits and loads or goes on."""
    faults, *ends = together(ready, killed)
    done = sum(end.output.splitlines().count("trained") for end in ends)
    return faults + [f"{done} of two processes trained"] * (done != 1)


def suites(ready: Prepared) -> list[str]:
    """The faults of two suites: one of them is refused in one line that has the remedy, the other one ends well."""
    faults, *ends = together(ready)
    refused = [end.error for end in ends if end.code]
    clear = len(refused) == 1 and "another suite runs in" in refused[0] and "wait for its end" in refused[0]
    return faults + [f"refused: {refused}"] * (not clear)


def both(ready: Prepared) -> list[str]:
    """The faults of two processes of which each ends well."""
    faults, *ends = together(ready)
    return faults + [end.error or f"exit code {end.code}" for end in ends if end.code]

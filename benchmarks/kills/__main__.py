"""`python -m benchmarks.kills KIND KEY=COUNT ...`: cases at COUNT of their steps, as JSON, {case: [starts, faults]}.

KIND is kill, or what a disk becomes: full, read_only or denied. The tests of the harness call it.
"""

from __future__ import annotations

import json
import sys

from benchmarks.kills import all_cases, trap
from benchmarks.kills.failures import fail_at
from benchmarks.kills.harness import Prepared, kill_at, prepared


def steps_of(ready: Prepared, count: int) -> list[int]:
    """The last steps, which name the results, and others in equal distances."""
    end = range(max(1, ready.steps - count // 2 + 1), ready.steps + 1)
    return sorted({*range(1, ready.steps + 1, max(1, ready.steps // (count - len(end)))), *end})


def main(kind: str, *wanted: str) -> None:
    counts = dict(text.split("=") for text in wanted)
    tallies = {}
    with all_cases() as every:
        for case in every:
            if case.key in counts:
                with prepared(case) as ready:
                    steps = steps_of(ready, int(counts[case.key]))
                    tally = kill_at(ready, steps) if kind == "kill" else fail_at(ready, steps, getattr(trap, kind))
                tallies[case.key] = [tally.kills, tally.faults]
    print(json.dumps(tallies))


if __name__ == "__main__":
    main(*sys.argv[1:])

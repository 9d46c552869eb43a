"""Damaged and hostile files: every reader reads rightly, or refuses with one line that names the file and the remedy.

Each reader gets `INPUTS` inputs: flipped, cut, inserted and spliced bytes, wrong and extreme values at random places of
the content, bombs, opcodes that would run code, links, folders and devices in place of files. An input is a fault if
another exception comes, if the message is long, of several lines or without the file, if it takes
`judge.SLOW`, if the process ends or grows by `judge.RESIDENT`, or if code is run or a file outside is touched.

    python -m benchmarks bad_files [--json PATH]      KD_INPUTS=100 tries fewer, KD_READERS=npz,parquet some of them
"""

from __future__ import annotations

import os

from benchmarks.measure import note, row

INPUTS = 2000


def readers() -> tuple:
    from benchmarks.bad_files import array_readers, image_readers, record_readers, text_readers, weight_readers

    modules = array_readers, image_readers, weight_readers, record_readers, text_readers
    return tuple(reader for module in modules for reader in module.READERS)


def run(threads: int = 1) -> list[dict]:
    """A row per reader: its faults, and how many inputs were read and refused."""
    from benchmarks.bad_files.child import try_readers

    wanted = os.environ.get("KD_READERS", "").split(",")
    chosen = [each for each in readers() if any(word in each.name for word in wanted)]
    rows = []
    for result in try_readers(
        chosen,
        int(os.environ.get("KD_INPUTS", INPUTS)),
        processes=int(os.environ.get("KD_PROCESSES", os.cpu_count() or 1)),
    ):
        for fault in result.faults:
            note(f"{result.name} {fault['number']}: {fault['outcome']}: {fault['text']}")
        case = f"{result.name}: {result.tried:,} inputs, {result.read:,} read, {result.refused:,} refused"
        case += f", slowest {result.seconds:.1f} s, most {result.grown >> 20} MiB"
        note(f"{case}, {len(result.faults)} faults")
        rows.append(row(case, len(result.faults), "faults", None, "0", not result.faults))
    return rows

"""`python -m benchmarks NAME|all`: run, print one table, exit 1 if a goal is missed."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib import import_module
from pathlib import Path

import torch

from benchmarks import BENCHMARKS
from benchmarks.measure import note
from kdhelpers import artifacts
from kdhelpers.device import cpu_name


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", help=f"one of {', '.join(BENCHMARKS)}, or all")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--json", metavar="PATH", help="also write the rows and the machine's description there")
    arguments = parser.parse_args()
    if arguments.name not in (*BENCHMARKS, "all"):
        parser.error(f"NAME = {arguments.name}: unknown; known: {', '.join(BENCHMARKS)}, all")
    if arguments.threads < 1:
        parser.error(f"--threads = {arguments.threads}: must be at least 1")
    machine = describe(arguments.threads)
    rows = []
    for name in BENCHMARKS if arguments.name == "all" else [arguments.name]:
        note(f"measuring {name} ...")
        rows += [{"name": name, **row} for row in import_module(f"benchmarks.{name}").run(arguments.threads)]
    print(table(rows))
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    if arguments.json:
        artifacts.save_json(Path(arguments.json), {"machine": machine, "rows": rows})
    return int(any(row["met"] is False for row in rows))


def describe(threads: int) -> dict:
    """What the figures depend on."""
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    gpu = {"GPU": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "threads": threads,
        "load average before": load,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "CPU": f"{cpu_name()} ({os.cpu_count()} cores)",
        **gpu,
    }


def table(rows: list[dict]) -> str:
    """Rows as aligned text."""
    cells = [("benchmark", "case", "value", "min-max", "unit", "peak MiB", "ratio", "goal", "met")]
    for row in rows:
        spread, met = row.get("spread"), {True: "yes", False: "NO", None: ""}[row["met"]]
        cells.append(
            (
                row["name"],
                row["case"],
                _number(row["value"]),
                f"{_number(spread[0])}-{_number(spread[1])}" if spread else "",
                row["unit"],
                _number(row.get("peak_mib")),
                _number(row["ratio"]),
                row["goal"],
                met,
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _number(value: float | None) -> str:
    """Three or more significant digits, thousands whole."""
    if value is None:
        return ""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(main())

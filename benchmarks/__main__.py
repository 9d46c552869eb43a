"""`python -m benchmarks NAME|all`: run, print one table, exit 1 if a goal is missed."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import torch

from benchmarks import BENCHMARKS, LONG
from benchmarks.measure import note
from benchmarks.tables import met, number, spread, table
from kdhelpers import artifacts
from kdhelpers.device import cpu_name, device_name, pick_device

COLUMNS = {
    "benchmark": lambda row: row["name"],
    "case": lambda row: row["case"],
    "value": lambda row: number(row["value"]),
    "min-max": spread,
    "unit": lambda row: row["unit"],
    "peak MiB": lambda row: number(row.get("peak_mib")),
    "ratio": lambda row: number(row["ratio"]),
    "goal": lambda row: row["goal"],
    "met": met,
}


def main() -> int:
    if sys.argv[1:2] == ["gpu"]:
        from benchmarks.gpu.command import main as gpu

        return gpu(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join((*BENCHMARKS, *LONG))
    parser.add_argument("name", help=f"one of {names}, or all; or gpu, with arguments of its own")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or mps")
    parser.add_argument("--json", metavar="PATH", help="also write the rows and the machine's description there")
    arguments = parser.parse_args()
    if arguments.name not in (*BENCHMARKS, *LONG, "all"):
        parser.error(f"NAME = {arguments.name}: unknown; known: {names}, all")
    if arguments.threads < 1:
        parser.error(f"--threads = {arguments.threads}: must be at least 1")
    try:
        device = pick_device(arguments.device)
    except (ValueError, RuntimeError) as error:
        parser.error(f"--device = {arguments.device}: {str(error).splitlines()[0]}")
    machine = describe(arguments.threads, device)
    rows = []
    for name in BENCHMARKS if arguments.name == "all" else [arguments.name]:
        note(f"measuring {name} ...")
        run = import_module(f"benchmarks.{name}").run
        options = {"device": str(device)} if "device" in signature(run).parameters else {}
        rows += [{"name": name, **row} for row in run(arguments.threads, **options)]
    print(table(rows, COLUMNS))
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    if arguments.json:
        artifacts.save_json(Path(arguments.json), {"machine": machine, "rows": rows})
    return int(any(row["met"] is False for row in rows))


def describe(threads: int, device: torch.device) -> dict:
    """What the figures depend on."""
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "threads": threads,
        "load average before": load,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "CPU": f"{cpu_name()} ({os.cpu_count()} cores)",
        **({} if device.type == "cpu" else {"device": device_name(device)}),
    }


if __name__ == "__main__":
    sys.exit(main())

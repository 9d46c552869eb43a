"""What the other sections found, in few lines: seconds per epoch, missed goals."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.session import Session
from benchmarks.measure import row
from benchmarks.tables import met, number, table

COLUMNS = {
    "section": lambda row: row["section"],
    "case": lambda row: row["case"],
    "value": lambda row: number(row["value"]),
    "unit": lambda row: row["unit"],
    "host ms": lambda row: number(row.get("host_ms")),
    "peak MiB": lambda row: number(row.get("peak_mib")),
    "ratio": lambda row: number(row["ratio"]),
    "goal": lambda row: row["goal"],
    "met": met,
    "note": lambda row: row.get("note", "")[:120],
    "device": lambda row: row["device"],
}


def report(session: Session) -> Iterator[dict]:
    once = sum(line["value"] for line in session.rows() if _each_epoch(line))
    yield row("an epoch besides its steps, resnet8x4", once, "ms")
    for line in session.rows():
        if line["section"] == "epochs" and "steps_per_epoch" in line and not line["case"].endswith("bound"):
            seconds = (line["value"] * line["steps_per_epoch"] + once) / 1e3
            yield row(f"an epoch of {line['case']}", seconds, "s") | {"note": f"{line['steps_per_epoch']} steps"}
    missed = [line["case"] for line in session.rows() if line["met"] is False]
    yield row("goals missed", len(missed), "", None, "0", not missed) | {"note": "; ".join(missed)}
    yield row("sections that failed", len(session.failed), "", None, "0", not session.failed)


def _each_epoch(line: dict) -> bool:
    """Plan, its copy, validation; a checkpoint is not written in each epoch."""
    parts = ("plan", "resnet8x4, validation")
    return line["section"] == "overhead" and line["case"].startswith(parts) and line["value"] is not None


def text(session: Session) -> str:
    lines = [table(session.rows(), COLUMNS), ""]
    lines += [f"{name}: {entry['status']}, {entry['seconds']:.1f} s" for name, entry in session.results.items()]
    lines += [f"\n{name}:\n{session.results[name]['traceback']}" for name in session.failed]
    return "\n".join(lines)

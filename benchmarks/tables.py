"""Rows as aligned text."""

from __future__ import annotations

from collections.abc import Callable

Columns = dict[str, Callable[[dict], str]]


def table(rows: list[dict], columns: Columns) -> str:
    """A line per row below the columns' heads."""
    cells = [tuple(columns), *(tuple(cell(row) for cell in columns.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def number(value: float | None) -> str:
    """Three or more significant digits, thousands whole; empty for None."""
    if value is None:
        return ""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


def met(row: dict) -> str:
    return {True: "yes", False: "NO", None: ""}[row["met"]]


def spread(row: dict) -> str:
    return f"{number(row['spread'][0])}-{number(row['spread'][1])}" if row.get("spread") else ""

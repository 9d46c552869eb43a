"""Times as text: limits as a user writes them, `90s`, `45min`, `2h`, `1.5h`, `2d`, and durations as they are shown."""

import math
import re

from kdhelpers.messages import short

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def seconds_of(text: object) -> float:
    """The seconds of a time with its unit. Raises ValueError for a text of another form and for no time at all."""
    match = re.fullmatch(rf"(\d+(?:\.\d+)?) ?({'|'.join(UNITS)})", str(text).strip())
    if not match or not 0 < (seconds := float(match[1]) * UNITS[match[2]]) < math.inf:
        fault = f"time_limit = {short(text)}: is not a time with its unit"
        raise ValueError(f"{fault}; write for instance 90s, 45min, 2h or 1d")
    return seconds


def limit_text(seconds: float) -> str:
    """The inverse, in the largest unit that is at most the time: `2h`, `90min` as `1.5h`."""
    unit = max((unit for unit in UNITS if UNITS[unit] <= seconds), key=UNITS.get, default="s")
    return f"{seconds / UNITS[unit]:g}{unit}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < 600 * size or unit == "h":
            return f"{seconds / size:.0f} {unit}"

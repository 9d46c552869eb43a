"""A job with a `matrix`, a list of mappings, stands for one job per mapping; $names in its texts become the values."""

import re
from typing import Any

from kdhelpers.messages import short

NAME = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def expand(item: Any) -> list[Any]:
    """The job once per mapping of its `matrix`, without that key; the job itself if it has no matrix.

    In its texts `$key` and `${key}` become the mapping's value. A text that consists of one name becomes the value
    itself, numbers included. Raises ValueError if `matrix` is not a list of mappings or a mapping lacks a name.
    """
    if not isinstance(item, dict) or "matrix" not in item:
        return [item]
    matrix, job = item["matrix"], {key: value for key, value in item.items() if key != "matrix"}
    if not (isinstance(matrix, list) and matrix and all(isinstance(values, dict) for values in matrix)):
        raise ValueError("matrix: must be a list of mappings; write `- {teacher: resnet56, student: resnet20}`")
    return [_substitute(job, values) for values in matrix]


def _substitute(part: Any, values: dict) -> Any:
    if isinstance(part, dict):
        return {key: _substitute(value, values) for key, value in part.items()}
    if isinstance(part, list):
        return [_substitute(value, values) for value in part]
    if not isinstance(part, str):
        return part
    name = NAME.fullmatch(part)
    return _value(name, values) if name else NAME.sub(lambda name: str(_value(name, values)), part)


def _value(match: re.Match, values: dict) -> Any:
    name = match[1] or match[2]
    if name not in values:
        names = ", ".join(map(str, values)) or "no names"
        raise ValueError(f"${short(name)}: `matrix` lacks this name in {short(values)}; it has {short(names)}")
    return values[name]

"""One written job that stands for many: `matrix`, a list of mappings whose values take the place of $names in the job."""

import re
from typing import Any

NAME = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def expanded(item: Any) -> list[Any]:
    """The job once per mapping of its `matrix`, without that key; the job itself where it has none.

    In its texts `$key` and `${key}` become the mapping's value; a text that is one name alone becomes the value itself,
    a number too. Raises ValueError for an `matrix` that is no list of mappings, and for a name that a mapping lacks.
    """
    if not isinstance(item, dict) or "matrix" not in item:
        return [item]
    matrix, job = item["matrix"], {key: value for key, value in item.items() if key != "matrix"}
    if not (isinstance(matrix, list) and matrix and all(isinstance(values, dict) for values in matrix)):
        raise ValueError("matrix: must be a list of mappings, `- {teacher: resnet56, student: resnet20}`")
    return [_filled(job, values) for values in matrix]


def _filled(part: Any, values: dict) -> Any:
    if isinstance(part, dict):
        return {key: _filled(value, values) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, values) for value in part]
    if not isinstance(part, str):
        return part
    whole = NAME.fullmatch(part)
    return _value(whole, values) if whole else NAME.sub(lambda found: str(_value(found, values)), part)


def _value(found: re.Match, values: dict) -> Any:
    name = found[1] or found[2]
    if name not in values:
        raise ValueError(f"${name}: not in {values} of `matrix`; it has {', '.join(map(str, values)) or 'no names'}")
    return values[name]

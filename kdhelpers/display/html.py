"""HTML from the package's jinja2 templates, which escape every value, and a small line chart as SVG."""

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

WIDTH, HEIGHT, MARGIN = 220, 120, 6  # of a chart, in SVG units


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("kdhelpers", "."),
        autoescape=True,
        undefined=ChainableUndefined,  # a record may lack any field
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """The template at this path in the package, filled in. A value that is not `Markup` is escaped."""
    return _environment().get_template(template).render(values)


def curve(
    title: str, lines: Mapping[str, Sequence[float | None]], reference: tuple[str, float | None] = ("", None)
) -> Markup:
    """A line per name over the epochs, with a legend. `reference` is a dashed level; None and NaN are gaps."""
    lines = {name: values for name, values in lines.items() if any(map(_is_number, values))}
    epochs = max(map(len, lines.values()), default=0)
    name, level = reference
    levels = {name: [level] * max(2, epochs)} if _is_number(level) else {}
    numbers = [value for values in (*lines.values(), *levels.values()) for value in values if _is_number(value)]
    low, high = min(numbers, default=0), max(numbers, default=0)
    points = partial(_points, low=low, high=high, epochs=epochs)
    chart = render(
        "display/curve.html.j2",
        title=title,
        lines={name: points(values) for name, values in lines.items()},
        levels={name: points(values) for name, values in levels.items()},
        label=f"{title} over {epochs} epochs",
        extent=f"{low:.3g} to {high:.3g}",
        view_box=f"0 0 {WIDTH} {HEIGHT}",
    )
    return Markup(chart)


def _points(values: Sequence[float | None], low: float, high: float, epochs: int) -> str:
    """The SVG coordinates of a line from the left edge to the right, `low` at the bottom and `high` at the top."""
    last, span = max(1, epochs - 1), (high - low) or 1.0
    points = [(epoch, value) for epoch, value in enumerate(values) if _is_number(value)]
    if len(points) == 1:  # one epoch becomes a dash
        points.append((points[0][0] + last / 8, points[0][1]))
    return " ".join(
        f"{MARGIN + (WIDTH - 2 * MARGIN) * epoch / last:.1f},"
        f"{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / span:.1f}"
        for epoch, value in points
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)

"""HTML from the package's jinja2 templates, which escape every value, and a small line chart as SVG."""

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

WIDTH, HEIGHT = 400, 210  # of a chart, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 22  # its margins


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
    title: str, lines: Mapping[str, Sequence[Sequence[float | None]]], reference: tuple[str, float | None] = ("", None)
) -> Markup:
    """Over the epochs, with a legend: per name a colour, and a line per run. None and NaN are gaps.

    `reference` is the name and the height of a dashed line.
    """
    lines = {name: [run for run in runs if any(map(_is_number, run))] for name, runs in lines.items()}
    lines = {name: runs for name, runs in lines.items() if runs}
    epochs = max((len(run) for runs in lines.values() for run in runs), default=0)
    name, level = reference
    levels = {name: [level] * max(2, epochs)} if _is_number(level) else {}
    runs = [*(run for group in lines.values() for run in group), *levels.values()]
    low, high, ticks = _axis([value for run in runs for value in run if _is_number(value)])
    points = partial(_points, low=low, high=high, epochs=epochs)
    chart = render(
        "display/curve.html.j2",
        title=title,
        lines={name: [points(run) for run in group] for name, group in lines.items()},
        levels={name: points(values) for name, values in levels.items()},
        label=f"{title} over {epochs} epochs: {_ends(lines)}",
        ticks=[(round(_height(tick, low, high), 1), f"{tick:g}") for tick in ticks],
        view_box=f"0 0 {WIDTH} {HEIGHT}",
        epochs=epochs,
        left=LEFT,
        right=WIDTH - RIGHT,
        bottom=HEIGHT - BOTTOM,
    )
    return Markup(chart)


def _ends(lines: Mapping[str, Sequence[Sequence[float | None]]]) -> str:
    """The last values, for readers who do not see the chart."""
    last = {name: [next(filter(_is_number, reversed(run))) for run in runs] for name, runs in lines.items()}
    return "; ".join(f"{name} ends at {', '.join(f'{value:.4g}' for value in values)}" for name, values in last.items())


def _axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """The lower and upper end of an axis of these values, and three to six round ticks between them."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    span = (high - low) or abs(high) or 1.0
    unit = 10 ** math.floor(math.log10(span / 3))
    step = next(factor * unit for factor in (10, 5, 2, 1) if factor * unit <= span / 2.5)
    ticks = [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return low, high, [round(tick, 12) for tick in ticks]


def _height(value: float, low: float, high: float) -> float:
    """The SVG coordinate of a value: `low` at the bottom, `high` at the top."""
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / ((high - low) or 1.0)


def _points(values: Sequence[float | None], low: float, high: float, epochs: int) -> str:
    """The SVG coordinates of a line from the left edge to the right."""
    last = max(1, epochs - 1)
    points = [(epoch, value) for epoch, value in enumerate(values) if _is_number(value)]
    if len(points) == 1:  # one epoch becomes a dash
        points.append((points[0][0] + last / 8, points[0][1]))
    width = WIDTH - LEFT - RIGHT
    return " ".join(f"{LEFT + width * epoch / last:.1f},{_height(value, low, high):.1f}" for epoch, value in points)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)

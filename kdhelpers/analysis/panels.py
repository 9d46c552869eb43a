"""Parts that several figures share: grids of panels, and class names on an axis."""

import math

MAX_NAMED_CLASSES = 20  # an axis has room for so many names


def grid_shape(count: int, columns: int) -> tuple[int, int]:
    """(rows, columns) of a grid for `count` panels, at most `columns` wide and at least 1x1."""
    columns = max(1, min(columns, count))
    return max(1, math.ceil(count / columns)), columns


def panel_grid(parent, shape: tuple[int, int], count: int, **options):
    """Axes [rows, columns] of a figure or subfigure; those after the first `count` are hidden."""
    grid = parent.subplots(*shape, squeeze=False, **options)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return grid


def name_columns(axes, names: list[str]) -> None:
    """Class names below the axis, tilted if one has more than 3 letters."""
    tilted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
    axes.set_xticks(range(len(names)), names, **tilted)

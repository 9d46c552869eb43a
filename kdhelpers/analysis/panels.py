"""Class names on an axis."""

MAX_NAMED_CLASSES = 20  # an axis has room for so many names


def name_columns(axes, names: list[str]) -> None:
    """Class names below the axis, tilted if one has more than 3 letters."""
    tilted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
    axes.set_xticks(range(len(names)), names, **tilted)

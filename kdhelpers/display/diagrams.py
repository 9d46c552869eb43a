"""A method as a diagram: boxes, and arrows between them."""

from collections.abc import Sequence

from kdhelpers.display.style import PALETTE, new_figure, styled

WIDTH, HEIGHT = 0.8, 0.5  # of a box, where neighbours are 1 apart


def diagram(boxes: dict[str, tuple[float, float]], arrows: Sequence[tuple[str, str]], dashed: Sequence = ()):
    """Boxes with their names, centred at (column, row), and an arrow for each (from, to); `dashed` ones are grey.

    A name may have several lines. Raises ValueError for an arrow from or to a box that does not exist.
    """
    if unknown := [name for pair in (*arrows, *dashed) for name in pair if name not in boxes]:
        raise ValueError(f"arrows: {unknown[0]!r} is not a box; the boxes are {', '.join(boxes)}")
    columns, rows = zip(*boxes.values(), strict=True)
    with styled():
        figure = new_figure(1.7 * (max(columns) - min(columns) + 1), 1.0 * (max(rows) - min(rows) + 1))
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set(xlim=(min(columns) - 0.5, max(columns) + 0.5), ylim=(min(rows) - 0.4, max(rows) + 0.4))
        patches = {name: _box(axes, name, *centre) for name, centre in boxes.items()}
        for pairs, look in ((arrows, {"color": PALETTE[0]}), (dashed, {"color": "0.45", "linestyle": (0, (4, 3))})):
            for start, end in pairs:
                ends = {"patchA": patches[start], "patchB": patches[end], "shrinkA": 0, "shrinkB": 1}
                style = {"arrowstyle": "-|>", "mutation_scale": 11, "linewidth": 1.3} | ends | look
                axes.annotate("", boxes[end], boxes[start], arrowprops=style)
    return figure


def _box(axes, name: str, column: float, row: float):
    from matplotlib.patches import Rectangle

    corner = (column - WIDTH / 2, row - HEIGHT / 2)
    box = axes.add_patch(Rectangle(corner, WIDTH, HEIGHT, facecolor="0.96", edgecolor="0.4"))
    axes.text(column, row, name, ha="center", va="center", fontsize=9)
    return box

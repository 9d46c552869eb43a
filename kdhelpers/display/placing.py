"""Labels that overlap neither each other nor the points and their whiskers."""

import math
from collections.abc import Sequence

from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

END = {"fontsize": 7.5, "va": "center", "linespacing": 0.95, "annotation_clip": False}
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
GAP = 12  # points between the axes and the labels of its lines
LOOK = {"fontsize": 7.5, "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0}, "zorder": 1.5}
NEAR, STEP, RINGS, DIRECTIONS = 6, 4, 50, 24  # points: distance of the first ring, distance between rings


def place_labels(axes, points: Sequence[tuple], texts: Sequence[str], colors: Sequence, whiskers: Sequence[float]):
    """Write each text near its point (x, y), which has a whisker up and down; data coordinates.

    The limits, the layout and all other artists of the axes must be final. A label takes the nearest free place, and a
    thin line leads to one that does not touch its point. One that finds no place within the axes takes the first.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # settles the layout
    figure.set_layout_engine("none")
    scale = figure.dpi / 72
    pixels = axes.transData.transform(points)
    taken = [_box(x, y, 7 * scale, 7 * scale) for x, y in pixels]
    for (x, y), whisker in zip(points, whiskers, strict=True):
        ends = axes.transData.transform([(x, y - whisker), (x, y + whisker)])
        taken.append((ends[0][0] - scale, ends[0][1], ends[1][0] + scale, ends[1][1]))
    inside = axes.get_window_extent()
    order = sorted(range(len(texts)), key=lambda i: -_crowd(pixels, i))
    for i in order:
        label = axes.annotate(texts[i], points[i], (0, 0), textcoords="offset points", color=colors[i], **LOOK)
        extent = label.get_window_extent()
        half = (extent.width / 2 + scale, extent.height / 2)
        places = _places(pixels[i], half, scale)
        free = (place for place in places if _is_free(_box(*place, 2 * half[0], 2 * half[1]), taken, inside))
        x, y = next(free, (pixels[i][0] + half[0] + NEAR * scale, pixels[i][1]))
        taken.append(_box(x, y, 2 * half[0], 2 * half[1]))
        label.set_position(((x - half[0] - pixels[i][0]) / scale, (y - half[1] - pixels[i][1]) / scale))
        if math.dist(_nearest(pixels[i], taken[-1]), pixels[i]) > (NEAR + STEP) * scale:
            end = axes.transData.inverted().transform(_nearest(pixels[i], taken[-1]))
            axes.plot(*zip(points[i], end, strict=True), color=colors[i], linewidth=0.5, alpha=0.6, zorder=0.8)


def label_ends(panels: dict) -> None:
    """Write texts right of each axes, in the order of their lines' ends and as near to them as they fit.

    panels: axes -> (x, y, text, colour) of each end, in data coordinates. The limits and all other artists must be
    final, too. A thin line leads from an end to its label.
    """
    if not any(panels.values()):
        return
    figure = next(iter(panels)).figure
    labels = {
        axes: [_end_label(axes, *end) for end in sorted(ends, key=lambda e: e[1])] for axes, ends in panels.items()
    }
    for _ in range(2):  # the layout makes room for the texts, then settles
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, texts in labels.items():
        size = max((Text.get_window_extent(text).height for text in texts), default=0) + 1  # without the leader
        heights = [axes.transData.transform(text.xy)[1] for text in texts]
        inside = axes.get_window_extent()
        for text, height in zip(texts, spread(heights, size, inside.y0 + size / 2, inside.y1 - size / 2), strict=True):
            text.set_position((1, (height - inside.y0) / inside.height))


def _end_label(axes, x: float, y: float, text: str, colour):
    offset = axes.transAxes + ScaledTranslation(GAP / 72, 0, axes.figure.dpi_scale_trans)
    look = END | {"color": colour, "arrowprops": LEADER | {"color": colour}}
    return axes.annotate(text, (x, y), (1, 0.5), "data", offset, **look)


def spread(wanted: Sequence[float], size: float, low: float, high: float) -> list[float]:
    """The places nearest to those wanted, which rise, that are at least `size` apart; from low to high if they fit."""
    blocks: list[
        list[float]
    ] = []  # labels that touch: the sum of where each would have the first one, and their number
    for place, value in enumerate(wanted):
        blocks.append([value - place * size, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    firsts = [total / count for total, count in blocks for _ in range(int(count))]
    highest = high - (len(wanted) - 1) * size  # of the first
    return [max(low, min(highest, first)) + place * size for place, first in enumerate(firsts)]


def _crowd(pixels, i: int) -> float:
    """How crowded a point is: crowded points are labelled first."""
    return sum(1 / (1 + math.dist(pixels[i], other)) for other in pixels)


def _places(point, half: tuple[float, float], scale: float):
    """Centres of a label around its point, ring by ring, right and left first."""
    for ring in range(RINGS):
        distance = (NEAR + STEP * ring) * scale
        for turn in range(DIRECTIONS):
            angle = (turn + 1) // 2 * (-1) ** turn * 2 * math.pi / DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            yield point[0] + across * (distance + half[0]), point[1] + up * (distance + half[1])


def _box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _is_free(box, taken, inside) -> bool:
    within = box[0] >= inside.x0 and box[1] >= inside.y0 and box[2] <= inside.x1 and box[3] <= inside.y1
    return within and not any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
    )


def _nearest(point, box) -> tuple[float, float]:
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])

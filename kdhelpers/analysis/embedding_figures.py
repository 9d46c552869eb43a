"""Figures of embeddings: t-SNE maps and spheres, a panel per network with the same images and colours."""

import math
from itertools import compress
from textwrap import fill

import numpy
from matplotlib import colormaps
from matplotlib.lines import Line2D

from kdhelpers.data import Data
from kdhelpers.display.style import MAX_WIDTH, PALETTE, new_figure, panel_grid, styled
from kdhelpers.nearest import guess

MARKERS = tuple((colour, marker) for marker in "o^s" for colour in PALETTE)  # 21 distinct ones
DEFAULT_CLASSES = 10  # of a data set with more classes than styles
MAX_SIDE = 2.9  # inches of a panel; three fit in MAX_WIDTH


def choose_classes(data: Data, names: str = "") -> list[int]:
    """Class numbers for `names`: names (with `_` for a space) or numbers, separated by spaces.

    Without names: all classes, up to 21; of more, the first class of each of the first ten superclasses, or the first
    ten classes of data without superclasses. Raises ValueError for an unknown class.
    """
    if names := str(names).split():  # papermill passes one number as a number
        return [_class_number(data, name) for name in names]
    if data.num_classes <= len(MARKERS):
        return list(range(data.num_classes))
    groups = list(data.superclasses or range(data.num_classes))
    return [groups.index(group) for group in sorted(set(groups))[:DEFAULT_CLASSES]]


def _class_number(data: Data, name: str) -> int:
    names = [class_name.replace(" ", "_") for class_name in data.class_names]
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    raise ValueError(f"classes = {name}: unknown; {guess(name, names)}give names, or numbers to {len(names) - 1}")


def tsne_maps(frame, class_names, superclasses=None):
    """The maps of a `tsne` frame, a panel per network, with one colour per class.

    superclasses: the name of each class's superclass, which gives the colour of more than 21 classes. Without them the
    colours follow the order of the classes, and the figure has no legend.
    """
    many = frame["label"].nunique() > len(MARKERS)
    groups, names = groups_of(frame["label"], superclasses if many and superclasses is not None else class_names)
    styles = MARKERS if len(names) <= len(MARKERS) else _spectrum(len(names))
    images = len(frame) // frame["network"].nunique()
    note = f"t-SNE of {images} images, perplexity {frame['perplexity'].iloc[0]:g}; "
    note += "axes, cluster sizes and gaps between clusters carry no meaning"
    with styled():
        figure, panels = _panels(frame, names if styles is MARKERS else [])
        for axes, points in panels:
            _scatter(axes, points[["x", "y"]], groups, styles, size=min(12, 400 / images**0.5))
            axes.set(xticks=[], yticks=[], box_aspect=1)
        figure.suptitle(fill(note, round(14 * figure.get_figwidth())), fontsize=8)  # below, it would overlap the legend
    return figure


def hypersphere_picture(frame, class_names):
    """The spheres of a `hypersphere` frame, a panel per network, viewed along the leading direction.

    The title gives the share of variance in the three directions. Raises ValueError for more than 21 classes.
    """
    groups, names = marked_groups(frame, class_names)
    with styled():
        figure, panels = _panels(frame, names, projection="3d")
        for axes, points in panels:
            _sphere(axes)
            _scatter(axes, points[["x", "y", "z"]], groups, MARKERS, size=12)
            kept = f"{points['kept_pct'].iloc[0]:.0f} % of the variance"
            axes.set_title(f"{axes.get_title()}\n{kept}", fontsize=9, y=1.05)
    return figure


def marked_groups(frame, class_names):
    """`groups_of` a frame; ValueError for more classes than styles."""
    groups, names = groups_of(frame["label"], class_names)
    if len(names) > len(MARKERS):
        raise ValueError(f"frame: {len(names)} classes, at most {len(MARKERS)} are distinguishable; choose fewer")
    return groups, names


def groups_of(labels, names):
    """(position of each label's name among the names present, as a Series; these names, in the order of classes)."""
    present = list(dict.fromkeys(names[label] for label in sorted(labels.unique())))
    return labels.map({label: present.index(names[label]) for label in labels.unique()}), present


def _spectrum(count: int):
    return [(colormaps["viridis"](position / count), "o") for position in range(count)]


def _panels(frame, legend, **projection):
    """A figure with its legend, and (axes, points) of each network in a grid."""
    networks = list(frame.groupby("network", sort=False))
    rows = math.ceil(len(networks) / (3 if len(networks) <= 6 else 4))  # more than two lines of three fill a screen
    columns = math.ceil(len(networks) / rows)
    side = min(MAX_SIDE, MAX_WIDTH / columns)
    width = max(side * columns, 4)
    entries = max(1, int(width / (0.5 + 0.075 * max(map(len, legend), default=0))))  # of the legend, per line
    figure = new_figure(width, (side + 0.4) * rows + 0.3 + 0.19 * math.ceil(len(legend) / entries))
    grid = panel_grid(figure, (rows, columns), len(networks), subplot_kw=projection).ravel()
    for axes, (name, _) in zip(grid, networks, strict=False):
        axes.set_title(fill(name, round(12 * side)), fontsize=9)
    if legend:
        marks = [Line2D([], [], color=colour, marker=marker, linestyle="") for colour, marker in MARKERS[: len(legend)]]
        figure.legend(marks, legend, loc="outside lower center", ncols=entries, handletextpad=0.1, markerscale=0.8)
    return figure, [(axes, points) for axes, (_, points) in zip(grid, networks, strict=False)]


def _scatter(axes, points, groups, styles, size: float) -> None:
    """In the order of the images, so that no class covers the others."""
    colours, markers = zip(*(styles[group] for group in groups.loc[points.index]), strict=True)
    for shape in dict.fromkeys(markers):
        chosen = [marker == shape for marker in markers]
        style = {"c": list(compress(colours, chosen)), "marker": shape, "linewidths": 0}
        axes.scatter(*points[chosen].to_numpy().T, s=size, **style)


def _sphere(axes) -> None:
    azimuth, polar = numpy.linspace(0, 2 * numpy.pi, 49)[:, None], numpy.linspace(0, numpy.pi, 25)
    x, y = numpy.cos(azimuth) * numpy.sin(polar), numpy.sin(azimuth) * numpy.sin(polar)
    axes.plot_wireframe(x, y, numpy.cos(polar)[None], rcount=12, ccount=6, color="0.8", linewidth=0.4)
    axes.set_box_aspect((1, 1, 1), zoom=1.7)
    axes.view_init(elev=12, azim=12)  # x, the leading direction, points towards the reader
    axes.set_axis_off()

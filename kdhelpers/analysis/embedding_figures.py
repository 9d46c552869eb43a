"""Pictures of embeddings: t-SNE maps and spheres, networks side by side, the same images and colours in each."""

import math
from difflib import get_close_matches
from textwrap import fill

from kdhelpers.data import Data
from kdhelpers.display.plots import PALETTE, new_figure, styled

LOOKS = tuple((colour, marker) for marker in "o^s" for colour in PALETTE)  # as many groups as can be told apart
FEW = 10  # classes shown of more than that, where nobody chose
COLUMNS = 4  # networks in a row, at most
SIDE = 2.9  # of a panel, inches


def choose_classes(data: Data, names: str = "") -> list[int]:
    """The classes to show: those of `names`, by name (with `_` for a space) or number, separated by spaces.

    Of none given: all that can be told apart (21); of more, the first class of each of the first ten superclasses, or
    the first ten classes where there are no superclasses. Raises ValueError for an unknown class.
    """
    if names := str(names).split():  # papermill passes one number as a number
        return [_class_number(data, name) for name in names]
    if data.num_classes <= len(LOOKS):
        return list(range(data.num_classes))
    groups = list(data.superclasses or range(data.num_classes))
    return [groups.index(group) for group in sorted(set(groups))[:FEW]]


def _class_number(data: Data, wanted: str) -> int:
    spelled = [name.replace(" ", "_") for name in data.class_names]
    if wanted in spelled:
        return spelled.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(spelled):
        return int(wanted)
    close = get_close_matches(wanted, spelled, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ValueError(f"classes = {wanted}: unknown; {hint}give names, or numbers from 0 to {len(spelled) - 1}")


def tsne_maps(frame, class_names, superclasses=None):
    """The maps of a `tsne` frame, a panel per network: the same images, each class in the same colour everywhere.

    superclasses: each class's superclass by name, which gives the colour where there are more classes than can be told
    apart (21). Without them the colours of so many follow the order of the classes, and there is no legend.
    """
    many = frame["label"].nunique() > len(LOOKS)
    groups, names = groups_of(frame["label"], superclasses if many and superclasses is not None else class_names)
    looks = LOOKS if len(names) <= len(LOOKS) else _spectrum(len(names))
    images = len(frame) // frame["network"].nunique()
    note = f"t-SNE of {images} images, perplexity {frame['perplexity'].iloc[0]:g}; "
    note += "axes, sizes of clusters and the gaps between them mean nothing"
    with styled():
        figure, panels = _panels(frame, names if looks is LOOKS else [])
        for axes, points in panels:
            _scatter(axes, points[["x", "y"]], groups, looks, size=min(12, 400 / images**0.5))
            axes.set(xticks=[], yticks=[], box_aspect=1)
        figure.suptitle(fill(note, round(14 * figure.get_figwidth())), fontsize=8)  # below, it would meet the legend
    return figure


def hypersphere_picture(frame, class_names):
    """The spheres of a `hypersphere` frame, a panel per network, seen from where its images are on the whole.

    The percentage is the share of the variance that the three directions hold: the rest is not to be seen. Raises
    ValueError for more classes than can be told apart (21).
    """
    groups, names = told_apart(frame, class_names)
    with styled():
        figure, panels = _panels(frame, names, projection="3d")
        for axes, points in panels:
            _sphere(axes)
            _scatter(axes, points[["x", "y", "z"]], groups, LOOKS, size=12)
            kept = f"{points['kept_pct'].iloc[0]:.0f} % of the variance"
            axes.set_title(f"{axes.get_title()}\n{kept}", fontsize=9, y=1.05)
    return figure


def told_apart(frame, class_names):
    """`groups_of` a frame whose every class has a look of its own, or ValueError."""
    groups, names = groups_of(frame["label"], class_names)
    if len(names) > len(LOOKS):
        raise ValueError(f"frame: {len(names)} classes, {len(LOOKS)} at most can be told apart; choose fewer")
    return groups, names


def groups_of(labels, names):
    """(each label's place among the names present, as a Series; those names, in the order of classes)."""
    present = list(dict.fromkeys(names[label] for label in sorted(labels.unique())))
    return labels.map({label: present.index(names[label]) for label in labels.unique()}), present


def _spectrum(count: int):
    from matplotlib import colormaps

    return [(colormaps["viridis"](place / count), "o") for place in range(count)]


def _panels(frame, legend, **projection):
    """A figure with its legend, and (axes, points) of each network in a grid."""
    from matplotlib.lines import Line2D

    networks = list(frame.groupby("network", sort=False))
    rows = math.ceil(len(networks) / COLUMNS)
    columns = math.ceil(len(networks) / rows)
    width = max(SIDE * columns, 4)
    entries = max(1, int(width / (0.5 + 0.075 * max(map(len, legend), default=0))))  # of the legend, in a line
    figure = new_figure(width, (SIDE + 0.4) * rows + 0.3 + 0.19 * math.ceil(len(legend) / entries))
    grid = figure.subplots(rows, columns, squeeze=False, subplot_kw=projection).ravel()
    for axes, (name, _) in zip(grid, networks, strict=False):
        axes.set_title(fill(name, 36), fontsize=9)
    for axes in grid[len(networks) :]:
        axes.set_axis_off()
    if legend:
        marks = [Line2D([], [], color=colour, marker=marker, linestyle="") for colour, marker in LOOKS[: len(legend)]]
        figure.legend(marks, legend, loc="outside lower center", ncols=entries, handletextpad=0.1, markerscale=0.8)
    return figure, [(axes, points) for axes, (_, points) in zip(grid, networks, strict=False)]


def _scatter(axes, points, groups, looks, size: float) -> None:
    """In the order of the images, so that no class lies above the others."""
    own = [looks[group] for group in groups.loc[points.index]]
    for shape in dict.fromkeys(marker for _, marker in own):
        mine = [marker == shape for _, marker in own]
        colours = [colour for colour, marker in own if marker == shape]
        axes.scatter(*points[mine].to_numpy().T, s=size, c=colours, marker=shape, linewidths=0)


def _sphere(axes) -> None:
    import numpy

    turn, height = numpy.linspace(0, 2 * numpy.pi, 49), numpy.linspace(0, numpy.pi, 25)
    across = [numpy.outer(side, numpy.sin(height)) for side in (numpy.cos(turn), numpy.sin(turn))]
    axes.plot_wireframe(*across, numpy.cos(height)[None], rcount=12, ccount=6, color="0.8", linewidth=0.4)
    axes.set_box_aspect((1, 1, 1), zoom=1.7)
    axes.view_init(elev=12, azim=12)  # x, the direction of most images, comes towards the reader
    axes.set_axis_off()

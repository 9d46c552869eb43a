"""Pictures of embeddings: t-SNE maps and the sphere in three directions, networks side by side, same images."""

from __future__ import annotations

import math
from textwrap import fill

from kdhelpers.plots import PALETTE, new_figure, styled

LOOKS = tuple((colour, marker) for marker in "o^s" for colour in PALETTE)  # as many groups as can be told apart
COLUMNS = 3  # networks in a row


def tsne_maps(frame, class_names, superclasses=None):
    """The maps of a `tsne` frame, a panel per network: the same images, each class in the same colour everywhere.

    superclasses: the name of each class's superclass, which gives the colour where there are more classes than can be
    told apart (21). Of more without superclasses, colours follow the order of the classes and there is no legend.
    """
    groups, names = _groups(frame["label"], class_names, superclasses)
    networks = list(frame.groupby("network", sort=False))
    images, perplexity = len(networks[0][1]), frame["perplexity"].iloc[0]
    with styled():
        figure, grid = _panels(len(networks), legend_rows=math.ceil(len(names) / _legend_columns(len(networks), names)))
        for axes, (name, points) in zip(grid, networks, strict=True):
            _scatter(axes, points[["x", "y"]].to_numpy().T, groups.loc[points.index].to_numpy(), size=60 / images**0.5)
            axes.set(xticks=[], yticks=[], box_aspect=1)
            axes.set_title(fill(name, 34), fontsize=9)
        note = f"t-SNE of {images} images, perplexity {perplexity:g}; axes, sizes of clusters and gaps have no unit"
        figure.supxlabel(fill(note, 48 * len(networks)), fontsize=8)
        _legend(figure, names, _legend_columns(len(networks), names))
    return figure


def hypersphere_picture(frame, class_names):
    """The spheres of a `hypersphere` frame, a panel per network; pale points lie on the far side.

    The percentage is the share of the variance that the three directions hold: the rest is not to be seen.
    """
    groups, names = _groups(frame["label"], class_names)
    networks = list(frame.groupby("network", sort=False))
    with styled():
        figure, grid = _panels(len(networks), projection="3d")
        for axes, (name, points) in zip(grid, networks, strict=True):
            _wireframe(axes)
            _scatter(axes, points[["x", "y", "z"]].to_numpy().T, groups.loc[points.index].to_numpy(), size=7)
            axes.set_title(f"{fill(name, 34)}\n{points['kept_pct'].iloc[0]:.0f} % of the variance", fontsize=9)
        _legend(figure, names, _legend_columns(len(networks), names))
    return figure

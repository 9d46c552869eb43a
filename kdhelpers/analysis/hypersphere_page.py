"""The sphere of embeddings to turn by hand: one HTML page that needs no network, no library and no server."""

import json

from kdhelpers.analysis.embedding_figures import MARKERS, marked_groups
from kdhelpers.display.html import Markup, render

GLYPHS = {"o": "●", "^": "▲", "s": "■"}


def hypersphere_page(frame, class_names, subject: str = "") -> str:
    """A `hypersphere` frame as a page: a sphere per network; a drag or the arrow keys turn all spheres together.

    subject: whose embeddings; it becomes part of the title, which the gallery lists. Names are escaped, and the script
    reads numbers only. Raises ValueError for more than 21 classes, the number of distinct looks.
    """
    groups, names = marked_groups(frame, class_names)
    networks = list(frame.groupby("network", sort=False))
    spheres = [
        {"at": points[["x", "y", "z"]].round(3).to_numpy().tolist(), "look": groups.loc[points.index].tolist()}
        for _, points in networks
    ]
    return render(
        "analysis/hypersphere.html.j2",
        title=" · ".join(filter(None, ("Embeddings on the sphere", subject))),
        images=len(networks[0][1]),
        legend=[(name, colour, GLYPHS[marker]) for name, (colour, marker) in zip(names, MARKERS, strict=False)],
        networks=[(name, points["kept_pct"].iloc[0]) for name, points in networks],
        spheres=Markup(json.dumps(spheres, allow_nan=False)),
    )

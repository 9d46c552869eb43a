"""matplotlib Figures from records and frames. No function uses pyplot's state or calls show().

A notebook shows a figure that ends a cell (after `notebook.setup()`); `save` writes it with its data.
"""

import io
import re
from pathlib import Path

from kdhelpers import artifacts
from kdhelpers.display.alt_text import describe, title
from kdhelpers.display.bars import bars
from kdhelpers.display.curves import accuracies, curves, history_frame, live
from kdhelpers.display.style import grid_shape, new_figure, panel_grid, shorten, styled

__all__ = ["accuracies", "bars", "curves", "history_frame", "live", "png", "samples", "save", "save_page"]
DOTS_PER_INCH = 150


def png(figure, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    """The figure as the bytes of a PNG file, whose text chunks Title and Description have it in words."""
    words = {"Title": title(figure), "Description": describe(figure)}
    with styled():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=dots_per_inch, metadata=words)
    return file.getvalue()


def save(figure, name: str, data=None, dots_per_inch: int = DOTS_PER_INCH) -> Path:
    """Write plots/<name>.png and its DataFrame as plots/<name>.csv; returns the PNG's path.

    Raises ValueError for a name that is not a file name, OSError if the folder is not writable.
    """
    path = _path(name, "png")
    if data is not None:
        artifacts.write_atomic(_path(name, "csv"), data.to_csv(index=False).encode())
    return artifacts.write_atomic(path, png(figure, dots_per_inch))


def save_page(page: str, name: str) -> Path:
    """Write an HTML page as plots/<name>.html, for the gallery; returns its path. Raises the errors of `save`."""
    if name == "index":
        raise ValueError("name = 'index': is the name of the gallery's page; choose another")
    return artifacts.write_atomic(_path(name, "html"), page.encode())


def _path(name: str, extension: str) -> Path:
    name = artifacts.file_name(name)
    if not re.fullmatch(r"[\w.=+-]+", name):
        raise ValueError(f"name = {name!r}: is not a file name; use letters, digits and . _ - = + only")
    return artifacts.folder("plots") / f"{name}.{extension}"


def samples(images, titles, columns: int = 8):
    """A grid of uint8 images [N, 3, H, W] (tensor or array), every image under its title; at most `columns` in a row.

    Raises ValueError unless there is one title per image.
    """
    if len(images) != len(titles):
        raise ValueError(f"titles: {len(titles)} given for {len(images)} images; give one per image")
    rows, columns = grid_shape(len(images), columns)
    with styled():
        figure = new_figure(1.15 * columns, 1.35 * rows)
        grid = panel_grid(figure, (rows, columns), 0)
        for axes, image, title in zip(grid.flat, images, titles, strict=False):
            axes.imshow(image.permute(1, 2, 0).cpu().numpy() if hasattr(image, "permute") else image.transpose(1, 2, 0))
            axes.set_title(shorten(str(title), 16), fontsize=8, fontweight="normal", pad=3)
    return figure

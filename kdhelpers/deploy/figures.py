"""The picture of networks to deploy: accuracy against latency, with the size of each file."""

from matplotlib.lines import Line2D

from kdhelpers.deploy.measuring import INT8
from kdhelpers.display.colours import colour_of
from kdhelpers.display.style import MAX_WIDTH, new_figure, styled
from kdhelpers.display.text import evidence_note

SMALLEST, LARGEST = 5.0, 14.0  # points: diameters of the markers


def picture(frame):
    """The frame of `measure` as a Figure: a panel per batch and number of threads.

    Across: the median time of an image. Up: the test accuracy. The area of a marker is that of the file's size. A line
    joins a network in float (filled) and in int8 (hollow).
    """
    batches, threads = (list(frame[field].unique()) for field in ("batch", "threads"))
    with styled():
        figure = new_figure(MAX_WIDTH, 1.2 + 2.2 * len(batches))
        grid = figure.subplots(len(batches), len(threads), squeeze=False, sharex=True, sharey=True)
        for row, batch in enumerate(batches):
            for column, count in enumerate(threads):
                panel = frame[(frame["batch"] == batch) & (frame["threads"] == count)]
                _draw(grid[row, column], panel, frame["megabytes"].max())
                images, cores = _plural(batch, "image"), _plural(count, "thread")
                grid[row, column].set_title(f"{images} at a time, {cores}")
            grid[row, 0].set_ylabel("test top-1 accuracy (%)")
        for axes in grid[-1]:
            axes.set_xlabel("time per image (ms, log scale)")
        figure.legend(handles=_legend(frame), loc="outside upper left", ncols=3)
        figure.supxlabel(_note(frame), fontsize=8, color="0.3")
    return figure


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _draw(axes, panel, largest: float) -> None:
    for label, group in panel.groupby("label", sort=False):
        x, y = group["median_ms"] / group["batch"], group["top1_pct"]
        axes.plot(x, y, color=colour_of(label), linewidth=1, alpha=0.6)
        for time, top1, precision, size in zip(x, y, group["precision"], group["megabytes"], strict=True):
            axes.plot([time], [top1], **_marker(label, precision), markersize=_diameter(size, largest))
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.tick_params(axis="x", which="minor", labelsize=8)


def _marker(label: str, precision: str) -> dict:
    colour = colour_of(label)
    return {"marker": "o", "color": colour, "markerfacecolor": "white" if precision == INT8 else colour, "ls": "none"}


def _diameter(size: float, largest: float) -> float:
    return max(SMALLEST, LARGEST * (size / largest) ** 0.5)


def _legend(frame) -> list:
    """A handle per network, with the size of each of its files."""
    handles = []
    for label, group in frame.drop_duplicates("network").groupby("label", sort=False):
        sizes = [
            f"{precision} {size:.2g} MB" for precision, size in zip(group["precision"], group["megabytes"], strict=True)
        ]
        handles.append(Line2D([], [], **_marker(label, ""), markersize=7, label=f"{label}: {', '.join(sizes)}"))
    return handles


def _note(frame) -> str:
    first = frame.iloc[0]
    evidence = evidence_note([first["dataset"]]) if "dataset" in frame else ""
    measured = f"median of {first['repeats']} batches, {first['runtime']} on {first['machine']}"
    counted = f"accuracy on {first['test_images']:,} test images, one training per network"
    marks = "filled: float; hollow: int8; the larger the file, the larger the marker" * (
        INT8 in set(frame["precision"])
    )
    return "\n".join(filter(None, [f"{measured}; {counted}", marks, evidence]))

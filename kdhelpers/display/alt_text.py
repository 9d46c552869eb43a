"""A picture in words, for readers who do not see it: made of the texts and values that the figure draws."""

import re

LONGEST = 600  # characters


def describe(figure) -> str:
    """The figure's title, then each panel: title, axes, named rows, bars or lines with their values; then the notes.

    Deterministic. A text of more than LONGEST characters ends with "…".
    """
    panels = [_panel(axes) for axes in figure.axes if axes.axison or axes.get_title()]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    foot = [f"Legend: {', '.join(legends)}" if legends else "", figure.get_supxlabel()]
    sentences = [_sentence(part) for part in (figure.get_suptitle(), *panels, *foot) if part.strip()]
    text = " ".join(sentences)
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"


def title(figure) -> str:
    """The figure's title, else that of its first panel that has one."""
    titles = (figure.get_suptitle(), *map(_title, figure.axes))
    return next((" ".join(text.split()) for text in titles if text.strip()), "")


def _title(axes) -> str:
    return axes.get_title(loc="left") or axes.get_title() or axes.get_title(loc="right")


def _panel(axes) -> str:
    quantities = " by ".join(filter(None, [axes.get_ylabel(), axes.get_xlabel()]))
    content = _named_places(axes) or _named_lines(axes) or _named_points(axes)
    content = content or ["an image"] * bool(axes.images)
    return ": ".join(filter(None, [_title(axes), quantities, ", ".join(filter(None, content))]))


def _named_places(axes) -> list[str]:
    """Each tick whose label has letters, from the top or from the left: with the texts there, else the bars' ends."""
    for axis, number in ((axes.yaxis, 1), (axes.xaxis, 0)):
        places = axis.get_majorticklocs()
        names = zip(places, axis.get_major_formatter().format_ticks(places), strict=True)
        named = [(place, name) for place, name in names if re.search("[a-zA-Z]", name)]
        if named:
            from_top = number == 1 and not axes.yaxis_inverted()
            return [_at(axes, place, name, number) for place, name in named[:: -1 if from_top else 1]]
    return []


def _at(axes, place: float, name: str, number: int) -> str:
    texts = [text for text in axes.texts if getattr(text, "xycoords", "") == "data"]
    values = [text.get_text() for text in texts if abs(float(text.xy[number]) - place) < 0.5]
    starts = [(bar.get_xy(), (bar.get_width(), bar.get_height())) for bar in axes.patches if hasattr(bar, "get_xy")]
    near = [bar for bar in starts if abs(bar[0][number] + bar[1][number] / 2 - place) < 0.5]
    values = values or [_number(start[1 - number] + size[1 - number]) for start, size in near]
    return " ".join([name, *values])


def _named_lines(axes) -> list[str]:
    """The first and the last value of each line that has a name; its value alone if they are equal."""
    lines = {line.get_label(): [float(value) for value in line.get_ydata()] for line in axes.lines}
    values = {name: [value for value in line if value == value] for name, line in lines.items() if name[:1] != "_"}
    ends = {name: list(dict.fromkeys([_number(line[0]), _number(line[-1])])) for name, line in values.items() if line}
    return [f"{name} {' to '.join(both)}" for name, both in ends.items()]


def _named_points(axes) -> list[str]:
    """The panel's texts, the highest first; one that is written at a point has its coordinates."""
    at_points = [text for text in axes.texts if getattr(text, "xycoords", "") == "data"]
    highest_first = sorted(at_points, key=lambda text: -text.xy[1])
    points = [f"{text.get_text()} ({', '.join(map(_number, text.xy))})" for text in highest_first]
    return points + [text.get_text() for text in axes.texts if text not in at_points]


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "…")) else f"{text}."

"""Escaped HTML elements, a small line chart as SVG, and the gallery's style sheet. Knows nothing of runs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 220, 120, 6  # of a chart, in its own units
VOID = {"img", "polyline"}


class Html(str):
    """Text that is markup already; every other text is escaped."""


def element(tag: str, *content: object, **attributes: object) -> Html:
    """<tag attributes>content</tag>; `class_` spells class, a name's other underscores become hyphens."""
    names = (name.rstrip("_").replace("_", "-") for name in attributes)
    written = "".join(f' {name}="{escape(str(value))}"' for name, value in zip(names, attributes.values(), strict=True))
    return Html(f"<{tag}{written}/>" if tag in VOID else f"<{tag}{written}>{join(content)}</{tag}>")


def join(parts: Iterable[object]) -> Html:
    return Html("".join(part if isinstance(part, Html) else escape(str(part)) for part in parts))


def curve(
    title: str, lines: Mapping[str, Sequence[float | None]], reference: tuple[str, float | None] = ("", None)
) -> Html:
    """A chart of one line per name over the epochs, with its legend; `reference` is a dashed level. Skips gaps."""
    lines = {name: values for name, values in lines.items() if any(map(_is_number, values))}
    levels = [reference[1]] if _is_number(reference[1]) else []
    if not lines:
        return element("div", element("p", f"{title}: not recorded", class_="muted"), class_="chart")
    present = [value for values in lines.values() for value in values if _is_number(value)] + levels
    low, high = min(present), max(present)
    epochs = max(map(len, lines.values()))
    place = _Scale(low, high, epochs)
    drawn = [element("polyline", points=place.line([level] * max(2, epochs)), class_="reference") for level in levels]
    drawn += [
        element("polyline", points=place.line(values), class_=f"line{index}")
        for index, values in enumerate(lines.values())
    ]
    chart = element(
        "svg",
        *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title} over {epochs} epochs",
    )
    names = [element("span", name, class_=f"key line{index}") for index, name in enumerate(lines)]
    names += [element("span", reference[0], class_="key reference") for _ in levels]
    span = element("span", f"{low:.3g} to {high:.3g}", class_="muted")
    return element(
        "div",
        element("p", element("b", title), " ", span),
        chart,
        element("p", *names, class_="legend"),
        class_="chart",
    )


class _Scale:
    def __init__(self, low: float, high: float, epochs: int):
        self.low, self.range, self.last = low, (high - low) or 1.0, max(1, epochs - 1)

    def line(self, values: Sequence[float | None]) -> str:
        points = [(index, value) for index, value in enumerate(values) if _is_number(value)]
        points += [(index + self.last / 8, value) for index, value in points if len(points) == 1]  # one epoch: a dash
        return " ".join(f"{self._x(index):.1f},{self._y(value):.1f}" for index, value in points)

    def _x(self, index: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * index / self.last

    def _y(self, value: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - self.low) / self.range


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1b1f24; --muted: #636c76; --line: #d8dee4;
  --0: #2563eb; --1: #d9730d; --2: #0f8a6d; --3: #8b3fc7; --bad: #c0282d; --warn: #8a5a00; --warn-back: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #1b2027; --text: #e6e9ee; --muted: #97a1ad;
  --line: #313843; --0: #6ea8fe; --1: #f2a65a; --2: #4fd1ab; --3: #c79bf2; --bad: #ff8080; --warn: #f5cf7a;
  --warn-back: #3a2f12; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { margin: 0; font-size: 26px; }
h2 { margin: 40px 0 12px; font-size: 20px; }
h3 { margin: 0; font-size: 16px; }
p { margin: 4px 0; }
a { color: var(--0); }
.muted { color: var(--muted); font-size: 13px; }
.scroll, .card, figure, pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.scroll { overflow-x: auto; padding: 4px 14px 10px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-size: 12px; font-weight: 600; color: var(--muted); }
th, td { padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr.teacher td { color: var(--muted); font-style: italic; }
.cards, .pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr)); gap: 16px; }
.cards, .pictures { margin-top: 16px; align-items: start; }
.card { padding: 16px; min-width: 0; }
.card.failed { border-color: var(--bad); }
.name { color: var(--muted); font: 12px ui-monospace, monospace; overflow-wrap: anywhere; }
.big { font-size: 28px; font-weight: 650; font-variant-numeric: tabular-nums; }
.badge { display: inline-block; padding: 1px 9px; border-radius: 99px; font-size: 12px; font-weight: 600;
  vertical-align: middle; background: var(--page); border: 1px solid var(--line); }
.badge.warn { color: var(--warn); background: var(--warn-back); border-color: transparent; }
.badge.failed, .error { color: var(--bad); }
.error { overflow-wrap: anywhere; }
.curves { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; margin: 8px 0; }
.chart { min-width: 0; font-size: 12px; }
svg { display: block; width: 100%; height: 96px; border: solid var(--line); border-width: 0 0 1px 1px; }
polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round;
  vector-effect: non-scaling-stroke; }
polyline.reference { stroke-dasharray: 5 4; stroke-width: 1.5; }
.line0 { color: var(--0); }
.line1 { color: var(--1); }
.line2 { color: var(--2); }
.line3 { color: var(--3); }
.reference { color: var(--muted); }
.legend { display: flex; flex-wrap: wrap; gap: 0 10px; }
.key::before { content: ""; display: inline-block; width: 12px; height: 3px; margin-right: 4px; vertical-align: middle;
  background: currentColor; border-radius: 2px; }
.key.reference::before { background: repeating-linear-gradient(90deg, currentColor 0 4px, transparent 4px 6px); }
dl { display: grid; grid-template-columns: auto 1fr; gap: 2px 12px; margin: 8px 0; font-size: 13px; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
.links { display: flex; gap: 14px; font-size: 13px; }
figure { margin: 0; padding: 12px; }
figure img { display: block; width: 100%; max-height: 320px; object-fit: contain; background: #fff; }
figcaption { font-size: 13px; color: var(--muted); overflow-wrap: anywhere; }
pre { padding: 12px; overflow-x: auto; }
"""

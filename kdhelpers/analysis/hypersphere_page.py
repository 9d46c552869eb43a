"""The sphere of embeddings to turn by hand: one HTML page that needs no network, no library and no server."""

import json

from kdhelpers.analysis.embedding_figures import MARKERS, marked_groups
from kdhelpers.display.html import STYLE, Html, element, join

GLYPHS = {"o": "●", "^": "▲", "s": "■"}


def hypersphere_page(frame, class_names, subject: str = "") -> str:
    """A `hypersphere` frame as a page: a sphere per network, all turned together by dragging or by the arrow keys.

    subject: whose embeddings, for the title, under which the gallery lists the page. Names are written by Python,
    escaped; the script reads numbers alone. Raises ValueError for more classes than can be told apart (21).
    """
    groups, names = marked_groups(frame, class_names)
    networks = list(frame.groupby("network", sort=False))
    spheres = [
        {"at": points[["x", "y", "z"]].round(3).to_numpy().tolist(), "look": groups.loc[points.index].tolist()}
        for _, points in networks
    ]
    images, title = len(networks[0][1]), " · ".join(filter(None, ("Embeddings on the sphere", subject)))
    body = join(
        [
            element("header", element("h1", title), element("p", _intro(images), class_="muted")),
            element("p", *(_key(name, *look) for name, look in zip(names, MARKERS, strict=False)), class_="legend"),
            element("div", *(_panel(name, points) for name, points in networks), class_="spheres"),
            element("script", Html(json.dumps(spheres, allow_nan=False)), id="spheres", type="application/json"),
            element("script", Html(SCRIPT)),
        ]
    )
    head = join(
        [
            Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", f"kdhelpers: {title}"),
            element("style", Html(STYLE + OWN_STYLE)),
        ]
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{element("main", body)}</body></html>\n'


def _intro(images: int) -> str:
    return (
        f"{images} images, the same for every network, each embedding scaled to length 1, seen in its network's three "
        "leading directions and scaled to length 1 again. Drag a sphere, or use the arrow keys: all turn together. "
        "Pale points lie on the far side."
    )


def _key(name: str, colour: str, marker: str) -> Html:
    return element("span", element("span", GLYPHS[marker], class_="look", style=f"--own: {colour}"), " ", name)


def _panel(name: str, points) -> Html:
    kept = f"{points['kept_pct'].iloc[0]:.0f} % of the variance is in these three directions"
    canvas = element("canvas", tabindex=0, role="img", aria_label=f"sphere of {name}")
    return element("figure", element("h3", name), canvas, element("figcaption", kept))


OWN_STYLE = """
.spheres { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 16px; }
.spheres { margin-top: 16px; }
.legend { gap: 2px 16px; }
.spheres h3 { overflow-wrap: anywhere; }
canvas { display: block; width: 100%; aspect-ratio: 1; cursor: grab; touch-action: none; }
canvas:active { cursor: grabbing; }
.look { color: var(--own); }
@media (prefers-color-scheme: dark) { .look { color: color-mix(in oklab, var(--own) 65%, white); } }
"""

# `turn` is the rotation, three rows; a drag turns about the axes of the screen, so it is multiplied from the left.
# The eye looks along the first axis: a point turned to (a, b, c) is drawn at right b, up c, and is near where a > 0.
SCRIPT = """
const spheres = JSON.parse(document.getElementById("spheres").textContent);
const canvases = [...document.querySelectorAll("canvas")];
const keys = [...document.querySelectorAll(".look")];
const times = (a, b) => a.map(row => [0, 1, 2].map(j => row[0] * b[0][j] + row[1] * b[1][j] + row[2] * b[2][j]));
const sideways = t => [[Math.cos(t), -Math.sin(t), 0], [Math.sin(t), Math.cos(t), 0], [0, 0, 1]];
const upwards = t => [[Math.cos(t), 0, -Math.sin(t)], [0, 1, 0], [Math.sin(t), 0, Math.cos(t)]];
let turn = times(upwards(-0.2), sideways(-0.2)), waiting = false;

const rings = [];
for (let degrees = 0; degrees < 180; degrees += 30) {
  const h = degrees * Math.PI / 180, around = [...Array(73).keys()].map(i => i * Math.PI / 36);
  rings.push(around.map(t => [Math.cos(h) * Math.cos(t), Math.sin(h) * Math.cos(t), Math.sin(t)]));
  rings.push(around.map(t => [Math.sin(h) * Math.cos(t), Math.sin(h) * Math.sin(t), Math.cos(h)]));
}

function mark(pen, shape, x, y, r) {
  pen.beginPath();
  if (shape === "■") pen.rect(x - r, y - r, 2 * r, 2 * r);
  else if (shape === "●") pen.arc(x, y, 1.1 * r, 0, 2 * Math.PI);
  else [[0, -1.3], [1.2, 1], [-1.2, 1]].forEach(([right, down]) => pen.lineTo(x + r * right, y + r * down));
  pen.fill();
}

function draw(canvas, sphere) {
  const size = canvas.clientWidth, scale = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
  canvas.width = canvas.height = size * scale;
  pen.scale(scale, scale);
  const place = p => {
    const [a, b, c] = turn.map(row => row[0] * p[0] + row[1] * p[1] + row[2] * p[2]);
    return [a, size / 2 + 0.47 * size * b, size / 2 - 0.47 * size * c];
  };
  const colours = keys.map(key => getComputedStyle(key).color), shapes = keys.map(key => key.textContent);
  pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--muted");
  for (const ring of rings.map(ring => ring.map(place)))
    for (let i = 1; i < ring.length; i++) {
      pen.globalAlpha = ring[i][0] > 0 ? 0.4 : 0.12;
      pen.beginPath(); pen.moveTo(ring[i - 1][1], ring[i - 1][2]); pen.lineTo(ring[i][1], ring[i][2]); pen.stroke();
    }
  const points = sphere.at.map((p, i) => [...place(p), sphere.look[i]]).sort((p, q) => p[0] - q[0]);
  for (const [near, x, y, look] of points) {
    pen.globalAlpha = near > 0 ? 0.9 : 0.25;
    pen.fillStyle = colours[look];
    mark(pen, shapes[look], x, y, size / 130);
  }
}

function drawAll() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; canvases.forEach((canvas, i) => draw(canvas, spheres[i])); });
}

function rotate(right, up) { turn = times(times(sideways(right), upwards(up)), turn); drawAll(); }

for (const canvas of canvases) {
  canvas.addEventListener("pointerdown", event => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", event => {
    if (event.buttons) rotate(2 * event.movementX / canvas.clientWidth, -2 * event.movementY / canvas.clientWidth);
  });
  canvas.addEventListener("keydown", event => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (step) { event.preventDefault(); rotate(...step); }
  });
}
addEventListener("resize", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
"""

"""Draw docs/wings.png from the imports of the package: `python docs/draw_wings.py`. Arrows point at imported wings."""

import ast
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "kdhelpers"
FACES = {"__init__", "__main__"}  # they only hand names on
PURPOSE = {
    "registry": "names of methods, networks, data",
    "artifacts": "paths, files, records",
    "device": "device, precision, memory",
    "messages": "information for the user",
    "python_paths": "which code a user gave",
    "nearest": "right names near wrong ones",
    "models": "networks by name",
    "methods": "one file per method",
    "display": "figures, texts, progress",
    "weights": "weight file -> network",
    "data": "files -> batches",
    "evaluation": "predictions, metrics",
    "training": "Run -> trained network",
    "analysis": "networks -> figures",
    "zoo": "teachers made elsewhere",
    "report": "records -> tables, page",
    "deploy": "weights -> files to deploy",
    "suite": "replay of the notebooks",
    "tuning": "fair search of settings",
    "cli": "python -m kdhelpers",
}


def wing(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def read() -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Lines of each wing, and wing -> imported wing -> number of import statements."""
    lines, arrows = defaultdict(int), defaultdict(lambda: defaultdict(int))
    wings = {wing(path) for path in PACKAGE.rglob("*.py")} - FACES
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        lines[wing(path)] += text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kdhelpers"):
                modules = [node.module] if "." in node.module else [f"kdhelpers.{name.name}" for name in node.names]
                for other in {module.split(".")[1] for module in modules} & wings - {wing(path)}:
                    arrows[wing(path)][other] += 1
    return {name: lines[name] for name in wings}, {name: arrows[name] for name in wings}


def floors(arrows: dict[str, dict[str, int]]) -> dict[str, int]:
    """Each wing one floor above the highest wing that it imports."""
    height: dict[str, int] = {}
    while len(height) < len(arrows):
        for name, imported in arrows.items():
            if name not in height and set(imported) <= set(height):
                height[name] = 1 + max((height[other] for other in imported), default=-1)
    return height


def implied(arrows: dict[str, dict[str, int]], name: str, other: str) -> bool:
    """Whether `name` also reaches `other` through a third wing."""
    below = {name: set(imported) for name, imported in arrows.items()}
    reached, todo = set(), list(below[name] - {other})
    while todo:
        third = todo.pop()
        reached |= below[third]
        todo += below[third] - {third}
    return other in reached


def draw(lines: dict[str, int], arrows: dict[str, dict[str, int]]) -> Figure:
    """Blue arrows are the imports that no other path implies; the grey ones are all others."""
    height = floors(arrows)
    top = max(height.values())
    figure = Figure(figsize=(11, 1.1 * (top + 1)), layout="constrained")
    axes = figure.subplots()
    place = {}
    for floor in range(top + 1):
        names = sorted(name for name in height if height[name] == floor)
        for number, name in enumerate(names):
            aside = (-0.9, 0.9)[floor % 2] if len(names) == 1 else 0
            place[name] = (number - (len(names) - 1) / 2) * 2.7 + aside, floor * 1.2
    for name, imported in arrows.items():
        for other in imported:
            (x, y), (to_x, to_y) = place[name], place[other]
            grey = implied(arrows, name, other)
            style = {"color": "0.85" if grey else "#0072B2", "linewidth": 0.7 if grey else 1.4, "mutation_scale": 10}
            ends = (x, y - 0.36), (to_x, to_y + 0.36)
            axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", zorder=1 if grey else 1.5, **style))
    for name, (x, y) in place.items():
        box = FancyBboxPatch((x - 1.1, y - 0.32), 2.2, 0.64, "round,pad=0.03", fc="#E8F1F8", ec="#0072B2", zorder=2)
        axes.add_patch(box)
        middle = {"ha": "center", "va": "center", "zorder": 3}
        axes.text(x, y + 0.1, f"{name}  {lines[name]:,}", weight="bold", fontsize=10, **middle)
        axes.text(x, y - 0.15, PURPOSE[name], fontsize=7.5, color="0.25", **middle)
    axes.set(xlim=(-5.4, 5.4), ylim=(-0.5, 1.2 * top + 0.5))
    axes.set_axis_off()
    return figure


if __name__ == "__main__":
    draw(*read()).savefig(DOCS / "wings.png", dpi=110)
    print(DOCS / "wings.png")

"""The picture of Grad-CAM: what the teacher and every student look at, image by image, errors among them."""

from textwrap import fill

import torch
from torch import Tensor, nn

from kdhelpers.analysis.gradcam import gradcam_maps
from kdhelpers.analysis.predictions import RIGHT, WRONG
from kdhelpers.data import Data
from kdhelpers.display.plots import new_figure, styled
from kdhelpers.evaluation.predictions import infer

CANDIDATES = 500  # test images among which the panel's are looked for: to run all 10,000 for six would take minutes
OVERLAY = {"cmap": "inferno", "vmin": 0, "vmax": 1, "alpha": 0.6}
LETTERS = 17  # in a line above a picture


def gradcam_panel(
    teacher: nn.Module, students: dict[str, nn.Module], data: Data, count: int = 6, seed: int = 0, errors: float = 0.5
):
    """Test images by row; by column the original under its true class, then the teacher's and each student's map.

    The maps are those of `gradcam_maps` (of the true class), over the image in grey, all on one colour scale. The title
    of each is the class that the network predicts, green with a tick where right, red with a cross where wrong.

    Of `count` images, drawn by `seed`, the share `errors` is of those that at least one student gets wrong and stands
    below the rest (less, where there are too few): the panel shows how networks look, not how often they err. Raises
    ValueError for a share outside [0, 1], for no image, and as `gradcam_maps` does.
    """
    if count < 1:
        raise ValueError(f"count = {count}: is no number of images; choose at least 1")
    if not 0 <= errors <= 1:
        raise ValueError(f"errors = {errors}: is no share of the images; choose a number in [0, 1]")
    networks = [("teacher", teacher), *students.items()]
    drawn = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:CANDIDATES]
    candidates = [infer(network, data, data.test.select(drawn)) for _, network in networks]
    erring = ~torch.stack([found.correct for found in candidates])[1:].all(0)
    place = _with_errors(erring, min(count, len(drawn)), errors)
    columns = [
        (name, found.logits[place].argmax(1), gradcam_maps(network, data, drawn[place]))
        for (name, network), found in zip(networks, candidates, strict=True)
    ]
    chosen = data.test.select(drawn[place])
    return _draw(chosen.images, chosen.labels, columns, data.class_names, int(erring[place].sum()))


def _with_errors(erring: Tensor, count: int, share: float) -> Tensor:
    """Positions in `erring` [N] of the first images without an error, then of the first with one, `count` in all."""
    fine, failed = (~erring).nonzero()[:, 0], erring.nonzero()[:, 0]
    wanted = max(min(round(share * count), len(failed)), count - len(fine))
    return torch.cat([fine[: count - wanted], failed[:wanted]])


def _draw(images: Tensor, labels: Tensor, columns: list[tuple[str, Tensor, Tensor]], class_names, errors: int):
    """columns: (network's name, predicted class [n], maps [n, H, W])."""
    count, names = len(images), ["true class", *(name for name, _, _ in columns)]
    with styled():
        figure = new_figure(1.25 * len(names), 1.45 * count + 0.9)
        grid = figure.subplots(1 + count, len(names), squeeze=False, height_ratios=[0.01, *[1] * count])
        for axes, name in zip(grid[0], names, strict=True):
            axes.set_axis_off()
            axes.set_title(fill(name, LETTERS), fontweight="normal", pad=0)
        for place, (axes, *overlays) in enumerate(grid[1:]):
            _picture(axes, images[place].permute(1, 2, 0), class_names[labels[place]], "black")
            for axes, (_, predicted, maps) in zip(overlays, columns, strict=True):
                title = class_names[predicted[place]]
                _overlay(axes, images[place], maps[place], title, bool(predicted[place] == labels[place]))
        bar = figure.colorbar(overlays[0].images[-1], ax=grid, location="bottom", shrink=0.6, aspect=40, pad=0.01)
        label = "Grad-CAM of the true class, each map from its least to its largest value; "
        label += f"{errors} of {count} images chosen because a student errs on them"
        bar.set_label(fill(label, LETTERS * len(names)))
    return figure


def _overlay(axes, image: Tensor, attended: Tensor, title: str, right: bool) -> None:
    _picture(axes, image.float().mean(0), f"{'✓' if right else '✗'} {title}", RIGHT if right else WRONG)
    axes.imshow(attended.numpy(), interpolation="bicubic", **OVERLAY)


def _picture(axes, image: Tensor, title: str, colour: str) -> None:
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
    axes.set_axis_off()
    axes.set_title(fill(title, LETTERS), color=colour, fontsize=8, pad=3)

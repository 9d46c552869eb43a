"""The Grad-CAM panel: maps of the teacher and every student, image by image, some of them misclassified."""

from textwrap import fill

import torch
from torch import Tensor, nn

from kdhelpers.analysis.gradcam import Networks, gradcam_maps
from kdhelpers.analysis.predictions import CORRECT, WRONG
from kdhelpers.data import Data, Split
from kdhelpers.display.style import MAX_WIDTH, new_figure, styled
from kdhelpers.evaluation.predictions import infer

CANDIDATES = 500  # test images to choose from; inference on all 10,000 would take minutes
OVERLAY = {"cmap": "inferno", "vmin": 0, "vmax": 1, "alpha": 0.6}
LETTERS = 14  # of a title's line, per inch


def gradcam_panel(
    teacher: nn.Module, students: Networks, data: Data, count: int = 6, seed: int = 0, errors: float = 0.5
):
    """Test images by row; by column the original under its true class, then the teacher's and each student's map.

    The maps are `gradcam_maps` (of the true class) over the grey image, on one colour scale. A title is the predicted
    class, green with a tick if correct, red with a cross if wrong.

    `seed` draws `count` images. At least one student misclassifies the share `errors` of them (less, if there are too
    few), which come last; so the panel does not show how often networks err. Raises ValueError for a share outside
    [0, 1], for no image, and as `gradcam_maps`.
    """
    if count < 1:
        raise ValueError(f"count = {count}: must be at least 1")
    if not 0 <= errors <= 1:
        raise ValueError(f"errors = {errors}: must be in [0, 1], a share of the images")
    networks = [("teacher", teacher), *students.items()]
    drawn = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:CANDIDATES]
    candidates = [infer(network, data, data.test.select(drawn)) for _, network in networks]
    wrong = ~torch.stack([predictions.correct for predictions in candidates])[1:].all(0)
    chosen = _with_errors(wrong, min(count, len(drawn)), errors)
    columns = [
        (name, predictions.logits[chosen].argmax(1), gradcam_maps(network, data, drawn[chosen]))
        for (name, network), predictions in zip(networks, candidates, strict=True)
    ]
    return _draw(data.test.select(drawn[chosen]), columns, data.class_names, int(wrong[chosen].sum()))


def _with_errors(wrong: Tensor, count: int, share: float) -> Tensor:
    """Positions in `wrong` [N] of the first correct images, then of the first wrong ones, `count` in all."""
    correct, failed = (~wrong).nonzero()[:, 0], wrong.nonzero()[:, 0]
    errors = max(min(round(share * count), len(failed)), count - len(correct))
    return torch.cat([correct[: count - errors], failed[:errors]])


def _draw(split: Split, columns: list[tuple[str, Tensor, Tensor]], class_names, errors: int):
    """columns: (network's name, predicted class [n], maps [n, H, W])."""
    count, names = len(split), ["true class", *(name for name, _, _ in columns)]
    with styled():
        side = min(1.25, MAX_WIDTH / len(names))  # inches of a column
        figure = new_figure(side * len(names), (side + 0.2) * count + 0.9)
        grid = figure.subplots(1 + count, len(names), squeeze=False, height_ratios=[0.01, *[1] * count])
        for axes, name in zip(grid[0], names, strict=True):
            axes.set_axis_off()
            axes.set_title(fill(name, round(LETTERS * side)), fontweight="normal", fontsize=10 * min(1, side), pad=0)
        for row, ((axes, *overlays), image, label) in enumerate(zip(grid[1:], split.images, split.labels, strict=True)):
            _picture(axes, image.permute(1, 2, 0), class_names[label], "black")
            for axes, (_, predicted, maps) in zip(overlays, columns, strict=True):
                _overlay(axes, image, maps[row], class_names[predicted[row]], bool(predicted[row] == label))
        bar = figure.colorbar(overlays[0].images[-1], ax=grid, location="bottom", shrink=0.6, aspect=40, pad=0.01)
        label = "Grad-CAM of the true class, each map scaled to 0..1; "
        label += f"{errors} of {count} images chosen because a student misclassifies them"
        bar.set_label(fill(label, round(LETTERS * side * len(names))))
    return figure


def _overlay(axes, image: Tensor, gradcam: Tensor, title: str, correct: bool) -> None:
    _picture(axes, image.float().mean(0), f"{'✓' if correct else '✗'} {title}", CORRECT if correct else WRONG)
    axes.imshow(gradcam.numpy(), interpolation="bicubic", **OVERLAY)


def _picture(axes, image: Tensor, title: str, colour: str) -> None:
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
    axes.set_axis_off()
    side = axes.figure.get_figwidth() / axes.get_subplotspec().get_gridspec().ncols
    axes.set_title(fill(title, round(LETTERS * side)), color=colour, fontsize=8 * min(1, 0.2 + 0.8 * side), pad=3)

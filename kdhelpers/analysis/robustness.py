"""Colour robustness: the loss of accuracy on test images with jittered colours."""

import math

import pandas
import torch
from torch import Tensor, nn

from kdhelpers.analysis.intervals import interval_bars, paired_difference
from kdhelpers.data import Data, Split, parse_recipe, plan_epoch
from kdhelpers.data.augmentation.colour import jitter
from kdhelpers.device import one_thread
from kdhelpers.display.style import new_figure, styled
from kdhelpers.evaluation.metrics import compare
from kdhelpers.evaluation.predictions import Predictions, infer

STRENGTHS = {"mild": (0.2, 0.05), "medium": (0.4, 0.1), "strong": (0.8, 0.2)}  # (strength, hue)
CHUNK = 100  # images; their float64 copies fit in the processor's cache


def jittered(split: Split, strength: float, hue: float, seed: int = 0) -> Split:
    """`split` with colour jitter: one draw of brightness, contrast, saturation and hue per image.

    Factors are uniform in 1 - strength .. 1 + strength, the hue shift in -hue .. hue; 0, 0 changes no pixel. The draws
    are made as in training (`plan_epoch`) and depend on `seed` and the number of images; strength and hue only scale
    them. Raises ValueError for a strength outside [0, 1] or a hue outside [0, 0.5].
    """
    return Split(_jitter(split.images, _factors(len(split), (strength, hue), seed)), split.labels)


def _factors(count: int, setting: tuple[float, float], seed: int) -> Tensor:
    """float32 [N, 4] for `colour.jitter`."""
    recipe = parse_recipe("jitter={}/{}".format(*setting))  # raises for values out of range
    return plan_epoch(recipe, count, image_size=0, views=1, seed=seed, epoch=0).draws["jitter"][0]


def _jitter(images: Tensor, factors: Tensor) -> Tensor:
    """uint8 to uint8. In float64, as rounding of float32 sums differs between processors and would change pixels."""
    chunks = zip(images.split(CHUNK), factors.double().split(CHUNK), strict=True)
    with one_thread(True):
        jittered = [(255 * jitter(pixels.double() / 255, factor)).round().to(torch.uint8) for pixels, factor in chunks]
    return torch.cat(jittered)


def colour_robustness(
    models: dict[str, nn.Module], data: Data, strengths: dict[str, tuple[float, float]] = STRENGTHS, seed: int = 0
):
    """A DataFrame of test top-1 on plain and jittered images, the same for all models: a row per strength and model.

    strengths: name -> (strength, hue), see `jittered`. Columns: model, strength; plain_pct, jittered_pct; drop_pct (the
    first minus the second) with its 95 % paired bootstrap interval over images drop_low_pct, drop_high_pct; retained
    (jittered / plain); n.
    """
    plain = {name: infer(model, data, "test") for name, model in models.items()}
    rows = []
    for strength, setting in strengths.items():
        images = jittered(data.test, *setting, seed)
        for name, model in models.items():
            drop = _drop(plain[name], infer(model, data, images), seed)
            rows.append({"model": name, "strength": strength, **drop})
    return pandas.DataFrame(rows)


def drop_difference(
    first: nn.Module, second: nn.Module, data: Data, setting: tuple[float, float] = STRENGTHS["medium"], seed: int = 0
) -> dict[str, float]:
    """The drop of first minus the drop of second in points, paired over the test images, as `paired_difference`."""
    images = jittered(data.test, *setting, seed)
    drops = [
        100 * (infer(model, data).correct.double() - infer(model, data, images).correct.double())
        for model in (first, second)
    ]
    return paired_difference(*drops)


def _drop(plain: Predictions, jittered: Predictions, seed: int) -> dict[str, float]:
    paired = compare(plain, jittered, seed=seed)
    return {
        "plain_pct": paired["first_pct"],
        "jittered_pct": paired["second_pct"],
        "drop_pct": paired["difference_pct"],
        "drop_low_pct": paired["low_pct"],
        "drop_high_pct": paired["high_pct"],
        "retained": paired["second_pct"] / paired["first_pct"] if paired["first_pct"] else math.nan,
        "n": paired["n"],
    }


def colour_robustness_bars(frame):
    """The drop of each model of a `colour_robustness` frame, a panel per strength; the name has the plain accuracy."""
    panels = {
        f"{strength} jitter": rows[["drop_pct", "drop_low_pct", "drop_high_pct"]].to_numpy().tolist()
        for strength, rows in frame.groupby("strength", sort=False)
    }
    models = frame.drop_duplicates("model")
    names = [f"{name} ({plain:.1f} %)" for name, plain in zip(models["model"], models["plain_pct"], strict=True)]
    return interval_bars(names, panels, "drop of test top-1 (points; plain accuracy in brackets); line: 95 % interval")


def jittered_samples(data: Data, count: int = 6, seed: int = 0):
    """Random test images: a row of plain ones, and a row per strength as `colour_robustness` jitters them."""
    chosen = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:count]
    images, labels = data.test.images[chosen], data.test.labels[chosen].tolist()
    rows = {"plain": images}
    for name, setting in STRENGTHS.items():
        rows[name] = _jitter(images, _factors(len(data.test), setting, seed)[chosen])
    with styled():
        figure = new_figure(1.15 * len(chosen) + 0.3, 1.2 * len(rows) + 0.2)
        grid = figure.subplots(len(rows), len(chosen), squeeze=False)
        for line, (name, pictures) in zip(grid, rows.items(), strict=True):
            for axes, image in zip(line, pictures, strict=True):
                axes.imshow(image.permute(1, 2, 0).numpy())
                axes.set(xticks=[], yticks=[])
            line[0].set_ylabel(name)
        for axes, label in zip(grid[0], labels, strict=True):
            axes.set_title(data.class_names[label][:16], fontsize=8, fontweight="normal")
    return figure

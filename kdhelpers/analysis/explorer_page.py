"""The explorer: one HTML page on which a reader compares the predictions of a teacher and its students, image by image.

The page holds the images and the logits, so its script computes probabilities and divergences at any temperature. It
needs no network, no library and no server.
"""

import base64
import io
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.analysis.agreement import divergence
from kdhelpers.data import Data
from kdhelpers.display.html import render
from kdhelpers.display.plots import grid_shape
from kdhelpers.evaluation.metrics import top_k_pct
from kdhelpers.evaluation.predictions import Predictions, require_same_images

LARGEST_SIDE = 64  # pixels of an image on the page; larger ones are scaled down
COLUMNS = 25  # of the sprite
TOP = 10  # classes with bars, if the data set has more


def explorer_page(
    data: Data,
    teacher: Predictions,
    students: Mapping[str, Predictions],
    subject: str = "",
    count: int = 500,
    seed: int = 0,
    stored_as: Mapping[str, str] | None = None,
) -> str:
    """The page over `count` test images of `data`, drawn at random with `seed`; all of them if there are fewer.

    students: label -> predictions of the test images by `infer`. subject: whose predictions; it becomes part of the
    title, which the gallery lists. stored_as: label -> artifact of the weights, also for the label "teacher". Texts are
    escaped. Raises ValueError without a student, for predictions of other images or classes, for logits that are not
    finite, and for a count below 1.
    """
    _check(data, teacher, students, count)
    total, networks = len(teacher.index), {"teacher": teacher, **students}
    shown = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    logits = torch.stack([network.logits[shown].float() for network in networks.values()])
    images, columns = data.test.images[teacher.index[shown]], min(COLUMNS, len(shown))
    content = {
        "networks": list(networks),
        "classes": list(data.class_names),
        "labels": teacher.labels[shown].tolist(),
        "index": teacher.index[shown].tolist(),
        "columns": columns,
        "top": TOP,
        "logits": base64.b64encode(logits.numpy().astype("<f4").tobytes()).decode(),
    }
    return render(
        "analysis/explorer.html.j2",
        title=" · ".join(filter(None, ("Explorer of predictions", subject))),
        dataset=data.name,
        sample="all" if len(shown) == total else f"{len(shown):,} of the {total:,}",
        drawn="" if len(shown) == total else f", drawn at random with seed {seed}",
        total=total,
        rows=_rows(teacher, networks, stored_as or {}),
        sprite=_sprite(images, columns),
        sprite_shape=(columns, grid_shape(len(shown), columns)[0]),
        content=content,
    )


def _check(data: Data, teacher: Predictions, students: Mapping[str, Predictions], count: int) -> None:
    if not students or "teacher" in students:
        raise ValueError(f"students = {', '.join(students)}: must be one student or more; none is called teacher")
    if count < 1:
        raise ValueError(f"count = {count}: must be 1 or more, such as 500")
    for student in students.values():
        require_same_images(teacher, student)
    known = teacher.labels is not None and teacher.index.max() < len(data.test)
    if not known or not torch.equal(data.test.labels[teacher.index], teacher.labels):
        raise ValueError(f"teacher: its predictions are not of the test images of {data.name}; use infer(model, data)")
    for label, network in {"teacher": teacher, **students}.items():
        _check_logits(label, network.logits, data)


def _check_logits(label: str, logits: Tensor, data: Data) -> None:
    if logits.shape[1] != len(data.class_names):
        raise ValueError(f"{label}: has {logits.shape[1]} classes; {data.name} has {len(data.class_names)}")
    if not logits.isfinite().all():
        raise ValueError(f"{label}: has logits that are not finite, as after a diverged training; leave it out")


def _rows(teacher: Predictions, networks: Mapping[str, Predictions], stored_as: Mapping[str, str]) -> list[tuple]:
    """Label, artifact, accuracy and mean KL divergence from the teacher of each network, over all test images."""
    return [
        (label, stored_as.get(label, ""), top_k_pct(network), divergence(teacher, network).mean().item())
        for label, network in networks.items()
    ]


def _sprite(images: Tensor, columns: int) -> str:
    """uint8 images [N, 3, H, W] as one WebP picture, `columns` wide, in a data URL."""
    from PIL import Image

    if images.shape[-1] > LARGEST_SIDE:
        small = F.interpolate(images.float(), size=LARGEST_SIDE, mode="bilinear", antialias=True, align_corners=False)
        images = small.round().clamp(0, 255).to(torch.uint8)
    count, channels, side, _ = images.shape
    rows, _ = grid_shape(count, columns)
    cells = torch.zeros(rows * columns, channels, side, side, dtype=torch.uint8)
    cells[:count] = images
    picture = cells.view(rows, columns, channels, side, side).permute(0, 3, 1, 4, 2).reshape(rows * side, -1, channels)
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"

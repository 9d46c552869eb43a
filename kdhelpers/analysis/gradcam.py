"""Where networks look (Grad-CAM): how far a student's maps agree with its teacher's, as a number and as a picture."""

import copy
import math

import torch
from torch import Tensor, nn

from kdhelpers.analysis.intervals import interval_bars, mean_interval
from kdhelpers.data import Data, evaluation_batches
from kdhelpers.data.dataset import stratified
from kdhelpers.models import FeatureExtractor

CHANCE = "chance (shuffled teacher maps)"


def gradcam_maps(model: nn.Module, data: Data, index: Tensor, batch_size: int = 100) -> Tensor:
    """Grad-CAM maps of the test images `index` [n] for their TRUE class y: float32 [n, H, W] in 0..1, on the CPU.

    map = relu(sum_c w_c A_c), w_c = mean over the positions of d logit_y / d A_c, without augmentation, in eval mode
    (Selvaraju et al., ICCV 2017, equations 1 and 2). A [c, h, w] is the deepest of `model.return_nodes.feature_maps` that is larger
    than 1x1. Each map is enlarged to the image's size bilinearly, shifted and scaled to 0..1; where no position
    speaks for the class, or all do alike, it is 0 everywhere. The same class for every network, so that maps differ
    by where they look and not by what they look for; of a misjudged image they show what speaks for the truth.

    Works on a copy: the model, its gradients and its hooks stay as they are. Raises ValueError for a model without
    return_nodes, with another number of classes than `data`, or whose maps are all 1x1.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    device = next(model.parameters()).device
    batches = evaluation_batches(data.test.select(index), batch_size, data.mean, data.std, device)
    probe, maps = copy.deepcopy(model).eval().requires_grad_(False), []
    layer = _deepest_layer(probe, data)
    # torch.clone: the library keeps the layer's very tensor, which an in-place ReLU behind it would overwrite
    with GradCAM(probe, [layer], reshape_transform=torch.clone) as cam, torch.enable_grad():
        for batch in batches:
            images = batch.views[0].requires_grad_()  # frozen parameters alone would leave nothing to differentiate
            maps.append(torch.from_numpy(cam(images, [ClassifierOutputTarget(y) for y in batch.labels.tolist()])))
    return torch.cat(maps)


@torch.no_grad()
def _deepest_layer(model: nn.Module, data: Data) -> nn.Module:
    """The last tapped module whose map has positions to tell apart. The number of classes is looked at as well, as
    GradCAM's context manager swallows the IndexError of a class that the model does not have."""
    device = next(model.parameters()).device
    first = data.test.select(torch.zeros(1, dtype=torch.int64))
    outputs = FeatureExtractor(model)(next(evaluation_batches(first, 1, data.mean, data.std, device)).views[0])
    if outputs.logits.shape[1] != data.num_classes:
        raise ValueError(
            f"model: it tells {outputs.logits.shape[1]} classes apart, {data.name} has {data.num_classes}; "
            "give a network trained on this data"
        )
    for name, found in reversed(outputs.feature_maps.items()):
        if found.shape[-2:].numel() > 1:
            return model.get_submodule(model.return_nodes.feature_maps[name])
    sizes = ", ".join(f"{name} {tuple(found.shape[-2:])}" for name, found in outputs.feature_maps.items())
    raise ValueError(
        f"model: no map is larger than 1x1 ({sizes or 'none is tapped'}); use larger images or another stem"
    )


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of two networks' maps [n, H, W] over the positions of each image: float64 [n].

    NaN where either map is constant: it has no direction in which to agree. Raises ValueError for unequal shapes.
    """
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"first, second: shapes {shapes} differ; give maps of the same images at the same size")
    first, second = _deviations(first), _deviations(second)
    return (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))


def _deviations(maps: Tensor) -> Tensor:
    flat = maps.flatten(1).double()
    flat = flat - flat[:, :1]  # the mean of equal values may miss them by a rounding; of zeros it cannot
    return flat - flat.mean(1, keepdim=True)


def gradcam_agreement(
    teacher: nn.Module,
    students: dict[str, nn.Module],
    data: Data,
    count: int = 300,
    seed: int = 0,
    control: str | None = None,
):
    """A DataFrame of how far students look where the teacher looks: a row per student, in the order given.

    Columns: student; correlation, the mean over images of the two maps' Pearson correlation, with its 95 % bootstrap
    interval over images low, high; n, the images that have one; undefined, those that have none as either map is
    constant. The last row is the floor, the teacher's map of each image against its map of another one: pictures have
    their subject in the middle, so that maps of any two may agree. Where one student is named as `control` (one that
    had no teacher), difference is each student's correlation minus the control's, paired over the images where both
    are defined, with its interval difference_low, difference_high.

    Images: `count` (or all, if there are fewer) of the test images, each class in proportion, chosen by `seed`, the
    same for every network. Maps are compared at the image's size: a network's own grid may be 8x8 or 2x2, and this is
    the one size that all have in common. The interval is over images, so enlarging makes nothing surer. Raises
    ValueError for fewer than 2 images, an unknown control, and as `gradcam_maps` does.
    """
    import pandas

    index = stratified(data.test.labels, min(count, len(data.test)), seed)[1]
    if len(index) < 2:
        raise ValueError(f"count = {count}: leaves {len(index)} test images; at least 2 are needed")
    if control is not None and control not in students:
        raise ValueError(f"control = {control}: is none of the students {', '.join(students)}")
    maps = gradcam_maps(teacher, data, index)
    found = {name: correlation(maps, gradcam_maps(student, data, index)) for name, student in students.items()}
    rows = [_row(name, each) | _difference(each, found.get(control)) for name, each in found.items()]
    cycle = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))  # no map meets itself
    rows.append(_row(CHANCE, correlation(maps[cycle], maps[cycle.roll(1)])))
    return pandas.DataFrame(rows)


def _row(name: str, correlations: Tensor) -> dict:
    mean, low, high = _interval(correlations)
    undefined = int(correlations.isnan().sum())
    n = len(correlations) - undefined
    return {"student": name, "correlation": mean, "low": low, "high": high, "n": n, "undefined": undefined}


def _difference(correlations: Tensor, control: Tensor | None) -> dict:
    if control is None:
        return {}
    names = ("difference", "difference_low", "difference_high")
    return dict(zip(names, _interval(correlations - control), strict=True))


def _interval(values: Tensor) -> tuple[float, float, float]:
    defined = values[~values.isnan()]
    return mean_interval(defined) if len(defined) else (math.nan,) * 3


def gradcam_bars(frame):
    """The correlation of each row of an `gradcam_agreement` frame with its interval, the floor last."""
    values = frame[["correlation", "low", "high"]].to_numpy().tolist()
    label = "mean over test images; line: 95 % interval over images"
    return interval_bars(frame["student"].tolist(), {"correlation with the teacher's map": values}, label)

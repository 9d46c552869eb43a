"""Grad-CAM maps, and their correlation between students and their teacher."""

import copy
import math

import pandas
import torch
from torch import Tensor, nn

from kdhelpers.analysis.intervals import interval_bars, mean_interval
from kdhelpers.data import Data, evaluation_batches
from kdhelpers.data.dataset import stratified
from kdhelpers.models import FeatureExtractor

Networks = dict[str, nn.Module]  # by name

CHANCE = "chance (shuffled teacher maps)"


def gradcam_maps(model: nn.Module, data: Data, index: Tensor, batch_size: int = 100) -> Tensor:
    """Grad-CAM maps of the test images `index` [n] for their TRUE class y: float32 [n, H, W] in 0..1, on the CPU.

    map = relu(sum_c w_c A_c), w_c = mean over positions of d logit_y / d A_c, without augmentation, in eval mode
    (Selvaraju et al., ICCV 2017, eq. 1 and 2). A [c, h, w] is the deepest of `model.return_nodes.feature_maps` larger
    than 1x1. Of a transformer it is the deepest that the logits depend on: they may ignore the last patch tokens. Each
    map is resized bilinearly to the image, then shifted and scaled to 0..1; a constant map becomes 0. The true class
    makes maps of networks with different predictions comparable.

    Works on a copy, so model, gradients and hooks do not change. Raises ValueError for a model without return_nodes,
    for another number of classes than `data`, and if all feature maps are 1x1.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    device = next(model.parameters()).device
    batches = evaluation_batches(data.test.select(index), batch_size, data.mean, data.std, device)
    network, maps = copy.deepcopy(model).eval().requires_grad_(False), []
    name = _deepest_map(network, data)
    layer = network.get_submodule(network.return_nodes.feature_maps[name])
    # torch.clone: the library keeps the layer's tensor itself, which a following in-place ReLU would overwrite
    as_map = network.return_nodes.layouts.get(name, torch.clone)
    with GradCAM(network, [layer], reshape_transform=as_map) as cam, torch.enable_grad():
        for batch in batches:
            images = batch.views[0].requires_grad_()  # as the parameters are frozen
            maps.append(torch.from_numpy(cam(images, [ClassifierOutputTarget(y) for y in batch.labels.tolist()])))
    return torch.cat(maps)


def _deepest_map(model: nn.Module, data: Data) -> str:
    """The name of the map. Also checks the number of classes, as GradCAM's context manager hides the IndexError of a
    missing class."""
    device = next(model.parameters()).device
    first = data.test.select(torch.zeros(1, dtype=torch.int64))
    image = next(evaluation_batches(first, 1, data.mean, data.std, device)).views[0]
    with torch.no_grad():
        outputs = FeatureExtractor(model)(image)
    if outputs.logits.shape[1] != data.num_classes:
        raise ValueError(
            f"model: has {outputs.logits.shape[1]} classes, {data.name} has {data.num_classes}; train it on this data"
        )
    unused = _unused(model, image)
    for name, feature_map in reversed(outputs.feature_maps.items()):
        if feature_map.shape[-2:].numel() > 1 and name not in unused:
            return name
    sizes = ", ".join(f"{name} {tuple(feature_map.shape[-2:])}" for name, feature_map in outputs.feature_maps.items())
    raise ValueError(f"model: no map is larger than 1x1 ({sizes or 'it has none'}); use larger images or another stem")


@torch.enable_grad()
def _unused(model: nn.Module, image: Tensor) -> set[str]:
    """The maps of a transformer whose patch tokens have no influence on the logits, such as the last block's."""
    nodes, outputs = model.return_nodes, {}
    if not nodes.layouts:
        return set()
    handles = [
        model.get_submodule(nodes.feature_maps[name]).register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.__setitem__(name, output)
        )
        for name in nodes.layouts
    ]
    logits = model(image.clone().requires_grad_())
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(logits.sum(), list(outputs.values()), allow_unused=True)
    of_map = zip(outputs, gradients, strict=True)
    return {name for name, gradient in of_map if gradient is None or not nodes.layouts[name](gradient).any()}


def map_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation of two networks' maps [n, H, W] over the positions of each image: float64 [n].

    NaN for a constant map. Raises ValueError for unequal shapes.
    """
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"first, second: shapes {shapes} differ; give maps of the same images at the same size")
    first, second = _deviations(first), _deviations(second)
    return (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))


def _deviations(maps: Tensor) -> Tensor:
    flat = maps.flatten(1).double()
    flat = flat - flat[:, :1]  # the mean of equal values has a rounding error unless they are 0
    return flat - flat.mean(1, keepdim=True)


def gradcam_agreement(
    teacher: nn.Module, students: Networks, data: Data, count: int = 300, seed: int = 0, control: str | None = None
):
    """A DataFrame of the Grad-CAM correlation between each student and the teacher, a row per student in order.

    Columns: student; correlation, the mean over images of the two maps' Pearson correlation, with its 95 % bootstrap
    interval over images low, high; n, the number of images with a correlation; undefined, the number with a constant
    map. The last row is chance: the teacher's map of an image against its map of another image, as most subjects are
    central. With `control`, a student without teacher, difference is the correlation minus the control's, paired over
    the images where both are defined, with its interval difference_low, difference_high.

    `seed` draws `count` test images, stratified by class, the same for every network; fewer are all taken. Maps are
    compared at the image's size. Raises ValueError for fewer than 2 images, an unknown control, and as `gradcam_maps`.
    """
    index = stratified(data.test.labels, min(count, len(data.test)), seed)[1]
    if len(index) < 2:
        raise ValueError(f"count = {count}: leaves {len(index)} test images; at least 2 are needed")
    if control is not None and control not in students:
        raise ValueError(f"control = {control}: is not one of the students {', '.join(students)}")
    maps = gradcam_maps(teacher, data, index)
    of_student = {name: map_correlation(maps, gradcam_maps(student, data, index)) for name, student in students.items()}
    rows = [_row(name, values, of_student.get(control)) for name, values in of_student.items()]
    cycle = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))  # pairs different images
    rows.append(_row(CHANCE, map_correlation(maps[cycle], maps[cycle.roll(1)])))
    return pandas.DataFrame(rows)


def _row(name: str, correlations: Tensor, control: Tensor | None = None) -> dict:
    undefined = int(correlations.isnan().sum())
    row = {"student": name} | _interval("correlation low high", correlations)
    row |= {"n": len(correlations) - undefined, "undefined": undefined}
    if control is not None:
        row |= _interval("difference difference_low difference_high", correlations - control)
    return row


def _interval(columns: str, values: Tensor) -> dict[str, float]:
    defined = values[~values.isnan()]
    interval = mean_interval(defined) if len(defined) else (math.nan,) * 3
    return dict(zip(columns.split(), interval, strict=True))


def gradcam_bars(frame):
    """The correlation of each row of a `gradcam_agreement` frame with its interval, chance last."""
    values = frame[["correlation", "low", "high"]].to_numpy().tolist()
    label = "mean over test images; line: 95 % interval over images"
    return interval_bars(frame["student"].tolist(), {"Grad-CAM correlation with the teacher": values}, label)

"""What the methods on feature maps compare, as pictures of one test image: attention, evidence, levels, cells."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdhelpers.analysis.predictions import CORRECT, WRONG
from kdhelpers.data import Data, evaluation_batches
from kdhelpers.display.style import new_figure, styled
from kdhelpers.methods.at import attention
from kdhelpers.methods.catkd import class_activation_maps
from kdhelpers.methods.parts.paired_maps import pooled
from kdhelpers.methods.sdd import cell_logits, verdicts
from kdhelpers.models import FeatureExtractor, Outputs

Networks = dict[str, nn.Module]  # by name


def attention_panel(networks: Networks, data: Data, index: int = 0):
    """A row for each network: test image `index`, then the attention map of each feature map except the first.

    Attention is the mean over channels of the squared map, as AT compares it; each map has a colour scale of its own.
    """
    image, rows = data.test.images[index], {}
    for name, network in networks.items():
        maps = list(_outputs(network, data, index).feature_maps.items())[1:]
        rows[name] = {layer: attention(values)[0].view(values.shape[2:]) for layer, values in maps}
    return _panel(rows, lambda axes, values, row: _overlay(axes, image, values, cmap="inferno", vmin=0), image)


def class_activation_panel(networks: Networks, data: Data, index: int = 0, count: int = 3):
    """A row for each network: test image `index`, then the class activation maps of the first network's `count` most
    probable classes. Red is evidence for the class, blue evidence against it; a network's maps have one colour scale.
    """
    image, rows, classes = data.test.images[index], {}, None
    for name, network in networks.items():
        outputs = _outputs(network, data, index)
        cams = class_activation_maps(outputs.final_map, _classifier(network).weight.detach())[0]
        classes = outputs.logits[0].topk(min(count, data.num_classes)).indices.tolist() if classes is None else classes
        rows[name] = {data.class_names[c]: cams[c] for c in classes}

    def draw(axes, values: Tensor, row: Tensor) -> None:
        largest = row.abs().max().item()
        _overlay(axes, image, values, cmap="RdBu_r", vmin=-largest, vmax=largest)

    return _panel(rows, draw, image)


def review_levels(network: nn.Module, data: Data, index: int = 0):
    """A row for each map that ReviewKD's student learns, the deepest last: the teacher's map before its last ReLU for
    test image `index`, and the same map pooled to 4x4, 2x2 and 1x1, which the loss also compares. Mean over channels;
    one grey scale a row. The embedding, the deepest level, has one pixel and is left out.
    """
    rows = {}
    for name, values in _outputs(network, data, index, pre_activations=True).pre_activations.items():
        mean = values.mean(1, keepdim=True)
        side = mean.shape[2]
        sizes = [side, *(size for size in (4, 2, 1) if size < side)]
        rows[f"{name}\n{values.shape[1]} channels"] = {f"{size} × {size}": pooled(mean, size)[0, 0] for size in sizes}

    def draw(axes, values: Tensor, row: Tensor) -> None:
        axes.imshow(values.numpy(), cmap="gray", vmin=row.min().item(), vmax=row.max().item())

    return _panel(rows, draw, titled_once=False)


def cell_panel(network: nn.Module, data: Data, index: int = 0, scales: tuple[int, ...] = (1, 2, 4)):
    """Test image `index` in the cells of each scale, with the class that the network predicts in each cell.

    A cell is green if this is the true class, else red. SDD counts a cell twice if its colour is not that of the whole
    image; these cells have a thick edge.
    """
    image, label = data.test.images[index], data.test.labels[index : index + 1]
    cells = cell_logits(_outputs(network, data, index).final_map, _classifier(network), scales)
    right = verdicts(cells, label.to(cells.device))[0].tolist()
    names = [data.class_names[c] for c in cells[0].argmax(1).tolist()]
    with styled():
        figure, place = new_figure(2.6 * len(scales), 2.9), 0
        for axes, scale in zip(figure.subplots(1, len(scales), squeeze=False)[0], scales, strict=True):
            _grey(axes, image)
            axes.set_title(f"{scale} × {scale}")
            for number in range(place, place + scale**2):
                _cell(axes, divmod(number - place, scale), scale, names[number], right[number], right[0])
            place += scale**2
    return figure


def _cell(axes, position: tuple[int, int], scale: int, name: str, right: bool, whole: bool) -> None:
    """Draw a cell at (row, column) of a scale x scale grid over the unit square."""
    from matplotlib.patches import Rectangle

    row, column = position
    side, inset = 1 / scale, 0.012
    corner, width = (column * side + inset, 1 - (row + 1) * side + inset), side - 2 * inset
    colour, weight = (CORRECT if right else WRONG), (3.5 if right != whole else 1.0)
    look = {"transform": axes.transAxes, "edgecolor": colour, "linewidth": weight}
    axes.add_patch(Rectangle(corner, width, width, facecolor="none", **look))
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
    centre = (column + 0.5) * side, 1 - (row + 0.5) * side
    size = max(5, 11 - 2 * scale) if len(name) > 2 else 9
    axes.text(*centre, name, color=colour, fontsize=size, ha="center", va="center", transform=axes.transAxes, bbox=box)


@torch.no_grad()
def _outputs(network: nn.Module, data: Data, index: int, **options: bool) -> Outputs:
    """All outputs of the network, in eval mode, for one test image."""
    device, was_training = next(network.parameters()).device, network.training
    (batch,) = evaluation_batches(data.test.select(torch.tensor([index])), 1, data.mean, data.std, device)
    outputs = FeatureExtractor(network.eval(), **options)(batch.views[0])
    network.train(was_training)
    return outputs


def _classifier(network: nn.Module) -> nn.Module:
    return network.get_submodule(network.return_nodes.classifier)


def _panel(rows: dict[str, dict[str, Tensor]], draw: Callable, image: Tensor | None = None, titled_once: bool = True):
    """A row of titled maps for each label; the first column is the image, if given.

    draw(axes, map, all values of its row) draws one map.
    """
    first, columns = int(image is not None), max(map(len, rows.values()))
    with styled():
        figure = new_figure(1.5 * (columns + first) + 1, 1.65 * len(rows) + 0.2)
        grid = figure.subplots(len(rows), columns + first, squeeze=False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[], frame_on=False)
        for number, (line, (label, maps)) in enumerate(zip(grid, rows.items(), strict=True)):
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
            if image is not None:
                _grey(line[0], image)
            values_of_row = torch.cat([values.flatten() for values in maps.values()])
            for axes, (title, values) in zip(line[first:], maps.items(), strict=False):
                draw(axes, values.float().cpu(), values_of_row)
                if not (titled_once and number):
                    axes.set_title(title)
    return figure


def _grey(axes, image: Tensor) -> None:
    axes.imshow(image.float().mean(0).numpy(), cmap="gray", vmin=0, vmax=255, extent=(0, 1, 0, 1))
    axes.set(xticks=[], yticks=[], frame_on=False)


def _overlay(axes, image: Tensor, values: Tensor, **look) -> None:
    _grey(axes, image)
    axes.imshow(values.numpy(), alpha=0.6, extent=(0, 1, 0, 1), **look)

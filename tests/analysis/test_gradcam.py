"""Grad-CAM maps equal the paper's, on a layer with positions, of an unchanged network; frame and panel show them."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdhelpers.analysis import gradcam, gradcam_agreement, gradcam_maps, gradcam_panel
from kdhelpers.analysis.gradcam import map_correlation
from kdhelpers.analysis.predictions import CORRECT, WRONG
from kdhelpers.data import Data, Split
from kdhelpers.models import ReturnNodes, build_model

CLASSES = 4
NAMES = ["top left", "top right", "bottom left", "bottom right"]


def quadrants(count, size=32):
    """Noise, brighter in the quadrant that is the image's class."""
    random = np.random.RandomState(0)
    labels = random.permutation(np.arange(count) % CLASSES)
    images = random.randint(0, 60, (count, 3, size, size))
    half = size // 2
    for image, label in zip(images, labels, strict=True):
        image[:, label // 2 * half :, label % 2 * half :][:, :half, :half] += 150
    return Split(torch.from_numpy(images).to(torch.uint8), torch.from_numpy(labels).long())


@pytest.fixture(scope="module")
def data():
    train, test = quadrants(8), quadrants(40)
    return Data("quadrants", train, train, test, NAMES, None, None, (0.2, 0.3, 0.4), (0.2, 0.2, 0.2))


class Quadrants(nn.Module):
    """Sees the quadrants: convolution, BatchNorm (the tapped map), in-place ReLU, four means, a linear layer."""

    def __init__(self, answers=(0, 1, 2, 3), seed=0, pool=2):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(pool)
        self.fc = nn.Linear(5 * pool**2, CLASSES, bias=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.conv.weight.copy_(0.2 * torch.rand(self.conv.weight.shape, generator=generator))
            self.norm.bias.copy_(torch.linspace(-1, 1, 5))
            weight = torch.zeros(CLASSES, 5, CLASSES)
            for place, answer in enumerate(answers):
                weight[answer, :, place] = 1
            if pool == 2:
                self.fc.weight.copy_(weight.flatten(1))
        self.return_nodes = ReturnNodes({"map": "norm"}, "fc")

    def forward(self, images):
        return self.fc(self.pool(self.act(self.norm(self.conv(images)))).flatten(1))


def scaled(low):
    low = low - low.min()
    return low / low.max() if low.max() > 0 else low


def naive(layer_map, head, label):
    """One image's map from the paper, a channel at a time: layer_map [1, c, h, w], head: layer_map -> logits."""
    layer_map = layer_map.detach().requires_grad_()
    gradient = torch.autograd.grad(head(layer_map)[0, label], layer_map)[0]
    low = torch.zeros(layer_map.shape[2:])
    for c in range(layer_map.shape[1]):
        low += gradient[0, c].mean() * layer_map[0, c].detach()
    low = scaled(low.clamp(min=0))
    return scaled(F.interpolate(low[None, None], size=(32, 32), mode="bilinear")[0, 0])


def normalised(data, i):
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    return ((data.test.images[i] / 255 - mean) / std)[None]


def cifar_stages(m, x):
    return m.layer3(m.layer2(m.layer1(m.relu(m.bn1(m.conv1(x))))))


def stock_stages(m, x):
    return m.layer3(m.layer2(m.layer1(m.maxpool(m.relu(m.bn1(m.conv1(x)))))))


def vgg_stages(m, x):
    return m.block4(m.halve_large(m.block3(m.halve(m.block2(m.halve(m.block1(m.halve(m.block0(x)))))))))


NETWORKS = {  # stages up to the map (its size) and the rest
    "resnet8": ({}, cifar_stages, 8, lambda m, a: m.fc(a.mean((2, 3)))),
    "vgg11": ({}, vgg_stages, 4, lambda m, a: m.classifier(a.mean((2, 3)))),
    "resnet18-cifar": (
        {"stem": "cifar"},
        lambda m, x: m.layer4(stock_stages(m, x)),
        4,
        lambda m, a: m.fc(a.mean((2, 3))),
    ),
    "resnet18-imagenet": ({"stem": "imagenet"}, stock_stages, 2, lambda m, a: m.fc(m.layer4(a).mean((2, 3)))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_those_of_the_paper_on_the_deepest_layer_with_positions(name, data):
    options, stages, size, head = NETWORKS[name]
    torch.manual_seed(1)
    model = build_model(name.partition("-")[0], CLASSES, **options).eval()
    index = torch.tensor([7, 2, 30, 11])
    found = gradcam_maps(model, data, index, batch_size=3)
    assert found.shape == (4, 32, 32)
    assert found.dtype == torch.float32
    varied = 0
    for i, own in zip(index.tolist(), found, strict=True):
        layer_map = stages(model, normalised(data, i))
        assert layer_map.shape[2:] == (size, size)
        expected = naive(layer_map, lambda a: head(model, a), data.test.labels[i])
        torch.testing.assert_close(own, expected, atol=2e-4, rtol=0)
        varied += expected.max() > 0
    assert varied >= 2


def test_an_in_place_relu_behind_the_layer_does_not_change_the_map(data):
    model = Quadrants().eval()

    def head(a):
        return model.fc(F.adaptive_avg_pool2d(F.relu(a), 2).flatten(1))

    for i, own in enumerate(gradcam_maps(model, data, torch.arange(4))):
        layer_map = model.norm(model.conv(normalised(data, i)))
        assert (layer_map < -0.1).any()  # or else before and after the ReLU would be the same
        torch.testing.assert_close(own, naive(layer_map, head, data.test.labels[i]), atol=1e-4, rtol=0)


def test_the_map_of_a_network_of_quadrants_is_largest_in_the_bright_quadrant(data):
    for i, own in enumerate(gradcam_maps(Quadrants(), data, torch.arange(8))):
        means = F.adaptive_avg_pool2d(own[None], 2).flatten()
        assert means.argmax() == data.test.labels[i]
        assert own.min() == 0
        assert own.max() == pytest.approx(1, abs=1e-5)


def test_the_map_is_of_the_true_class_whatever_is_predicted(data):
    wrong = Quadrants(answers=(1, 2, 3, 0))
    for i, own in enumerate(gradcam_maps(wrong, data, torch.arange(4))):
        model, label = copy.deepcopy(wrong).eval(), data.test.labels[i]

        def head(a, model=model):
            return model.fc(F.adaptive_avg_pool2d(F.relu(a), 2).flatten(1))

        layer_map = model.norm(model.conv(normalised(data, i)))
        assert head(layer_map).argmax() != label
        torch.testing.assert_close(own, naive(layer_map, head, label), atol=1e-4, rtol=0)


def test_the_model_stays_as_it_was(data):
    model = build_model("resnet8", CLASSES).train()
    model.layer1.eval()
    model.layer2.requires_grad_(False)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    asked = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():  # as a caller may have it
        gradcam_maps(model, data, torch.arange(3))
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == asked
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(model.fc.weight.grad, torch.ones_like(model.fc.weight))
    assert all(parameter.grad is None for parameter in model.parameters() if parameter is not model.fc.weight)


def test_a_model_whose_maps_have_no_positions_is_refused(data):
    model = Quadrants(pool=1)
    model.return_nodes = ReturnNodes({"pooled": "pool"}, "fc")
    with pytest.raises(ValueError, match=r"no map is larger than 1x1 \(pooled \(1, 1\)\)"):
        gradcam_maps(model, data, torch.arange(2))


def test_a_model_of_other_classes_is_refused_and_not_swallowed(data):
    with pytest.raises(ValueError, match="model: has 3 classes, quadrants has 4"):
        gradcam_maps(build_model("resnet8", 3), data, torch.arange(2))


def test_correlation_is_pearsons_of_each_image():
    first, second = torch.rand(2, 5, 6, 7, generator=torch.Generator().manual_seed(0)).unbind()
    expected = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(first, second, strict=True)]
    found = map_correlation(first, second)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert map_correlation(first, 3 * first + 2).tolist() == pytest.approx([1] * 5)
    assert map_correlation(first, 1 - first).tolist() == pytest.approx([-1] * 5)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])  # of 6 x 6 times 0.3 the mean is not 0.3
def test_a_constant_map_correlates_with_nothing(value):
    maps = torch.rand(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flat = maps.clone()
    flat[1] = value
    for found in (map_correlation(maps, flat), map_correlation(flat, maps)):
        assert found[0] == pytest.approx(1)
        assert found[1].isnan()


def test_maps_of_unequal_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 4, 4\) and \(2, 4, 4\) differ"):
        map_correlation(torch.rand(1, 4, 4), torch.rand(2, 4, 4))


def test_agreement_has_a_row_per_student_and_the_floor_last(data):
    teacher, blind = Quadrants(), Quadrants()
    with torch.no_grad():
        blind.fc.weight[0].zero_()  # nothing speaks for class 0
    students = {"same": Quadrants(), "other": Quadrants(seed=5), "blind": blind}
    frame = gradcam_agreement(teacher, students, data, count=20).set_index("student")
    assert list(frame.columns) == ["correlation", "low", "high", "n", "undefined"]
    assert list(frame.index) == [*students, gradcam.CHANCE]
    assert frame.loc["same", "correlation"] == pytest.approx(1)
    assert frame.loc["same", "n"] == 20
    assert frame.loc["other", "low"] < frame.loc["other", "correlation"] < frame.loc["other", "high"] < 1
    assert frame.loc["blind", "n"] == 15  # five images of each class
    assert frame.loc["blind", "undefined"] == 5
    assert frame.loc["blind", "correlation"] == pytest.approx(1)


def one_pixel_maps(seen):
    def gradcam_maps(model, data, index):
        seen.append(index)
        return F.one_hot(torch.arange(len(index)), 64).float().view(-1, 8, 8) * model

    return gradcam_maps


def test_all_networks_get_the_same_images_of_every_class_and_chance_never_pairs_one_with_itself(data, monkeypatch):
    seen = []
    monkeypatch.setattr(gradcam, "gradcam_maps", one_pixel_maps(seen))
    frame = gradcam_agreement(1.0, {"a": 2.0, "never": 0.0}, data, count=12, seed=3).set_index("student")
    assert all(torch.equal(index, seen[0]) for index in seen)
    assert data.test.labels[seen[0]].bincount().tolist() == [3, 3, 3, 3]
    assert frame.loc["a", "correlation"] == pytest.approx(1)
    assert frame.loc[gradcam.CHANCE, "correlation"] == pytest.approx(-1 / 63)  # of two different pixels, each time
    assert frame.loc["never", ["n", "undefined"]].tolist() == [0, 12]
    assert math.isnan(frame.loc["never", "correlation"])


def test_more_images_than_there_are_means_all_and_a_single_one_is_refused(data, monkeypatch):
    seen = []
    monkeypatch.setattr(gradcam, "gradcam_maps", one_pixel_maps(seen))
    gradcam_agreement(1.0, {}, data, count=300)
    assert seen[0].tolist() == list(range(40))
    with pytest.raises(ValueError, match="count = 1: leaves 1 test images"):
        gradcam_agreement(1.0, {}, data, count=1)


def panel(figure, rows, columns):
    """(headings, grid of axes [rows][columns], what is left: the colour bar's)."""
    axes = figure.axes
    grid = [axes[columns * (r + 1) : columns * (r + 2)] for r in range(rows)]
    return [a.get_title() for a in axes[:columns]], grid, axes[columns * (rows + 1) :]


def test_panel_shows_errors_below_and_titles_what_each_network_predicts(data):
    students = {"SI": Quadrants(), "LM": Quadrants(answers=(1, 0, 2, 3))}  # LM takes left for right at the top
    heads, grid, rest = panel(gradcam_panel(Quadrants(), students, data, count=6), 6, 4)
    assert heads == ["true class", "teacher", "SI", "LM"]
    for row, (original, *overlays) in enumerate(grid):
        true = original.get_title()
        assert (true in NAMES[:2]) == (row >= 3)
        predicted = NAMES[1 - NAMES.index(true)] if row >= 3 else true
        last = f"✗ {predicted}" if row >= 3 else f"✓ {true}"
        assert [axes.get_title() for axes in overlays] == [f"✓ {true}", f"✓ {true}", last]
        assert [axes.title.get_color() for axes in overlays] == [CORRECT, CORRECT, WRONG if row >= 3 else CORRECT]
    assert {axes.images[-1].get_clim() for _, *overlays in grid for axes in overlays} == {(0, 1)}
    assert len(rest) == 1
    assert "3 of 6 images chosen because" in rest[0].get_xlabel().replace("\n", " ")


def test_panel_shows_each_image_with_its_own_maps(data):
    student = Quadrants(seed=5)
    _, grid, _ = panel(gradcam_panel(Quadrants(), {"SI": student}, data, count=4, seed=2), 4, 3)
    pictures = data.test.images.permute(0, 2, 3, 1).numpy()
    for original, teacher, other in grid:
        shown = np.asarray(original.images[0].get_array())
        (i,) = [i for i, picture in enumerate(pictures) if np.array_equal(picture, shown)]
        assert original.get_title() == NAMES[data.test.labels[i]]
        for axes, model in ((teacher, Quadrants()), (other, student)):
            own = gradcam_maps(model, data, torch.tensor([i]))[0]
            np.testing.assert_allclose(axes.images[-1].get_array(), own, atol=1e-4)


@pytest.mark.parametrize(
    ("answers", "errors", "wrong"),
    [
        ((0, 1, 2, 3), 1.0, 0),  # no error to be had
        ((1, 2, 3, 0), 0.0, 4),  # nothing but errors
        ((1, 0, 2, 3), 0.25, 1),
        ((1, 0, 2, 3), 1.0, 4),
    ],
)
def test_panel_is_full_where_errors_or_their_contrary_are_too_few(answers, errors, wrong, data):
    figure = gradcam_panel(Quadrants(), {"SI": Quadrants(answers)}, data, count=4, errors=errors)
    _, grid, _ = panel(figure, 4, 3)
    assert sum(row[-1].get_title().startswith("✗") for row in grid) == wrong


def test_an_error_of_the_teacher_alone_is_none_of_a_students(data):
    figure = gradcam_panel(Quadrants((1, 2, 3, 0)), {"SI": Quadrants()}, data, count=4, errors=1.0)
    _, grid, rest = panel(figure, 4, 3)
    assert {(row[1].get_title()[0], row[2].get_title()[0]) for row in grid} == {("✗", "✓")}
    assert "0 of 4 images" in rest[0].get_xlabel().replace("\n", " ")


@pytest.mark.parametrize(("wish", "message"), [({"errors": 1.5}, "errors = 1.5"), ({"count": 0}, "count = 0")])
def test_a_panel_without_images_or_with_a_share_above_1_is_refused(wish, message, data):
    with pytest.raises(ValueError, match=message):
        gradcam_panel(Quadrants(), {}, data, **wish)


def test_the_difference_from_a_control_is_paired_by_image(data):
    students = {"SI": Quadrants(seed=5), "LM": Quadrants(seed=6)}
    frame = gradcam_agreement(Quadrants(), students, data, count=20, control="SI").set_index("student")
    assert frame.loc["SI", ["difference", "difference_low", "difference_high"]].tolist() == [0, 0, 0]
    expected = frame.loc["LM", "correlation"] - frame.loc["SI", "correlation"]
    assert frame.loc["LM", "difference"] == pytest.approx(expected)
    assert frame.loc["LM", "difference_low"] < expected < frame.loc["LM", "difference_high"]
    with pytest.raises(ValueError, match="control = nobody: is not one of the students SI, LM"):
        gradcam_agreement(Quadrants(), students, data, count=20, control="nobody")

"""Panels of feature maps: their titles, and the numbers that they draw."""

from dataclasses import replace

import pytest
import torch

from kdhelpers import build_model
from kdhelpers.analysis import attention_panel, cell_panel, class_activation_panel, review_levels
from kdhelpers.analysis.predictions import CORRECT, WRONG
from kdhelpers.data import evaluation_batches


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {name: build_model("resnet8", 10).eval() for name in ("teacher", "student")}


def logits(network, data, index):
    (batch,) = evaluation_batches(data.test.select(torch.tensor([index])), 1, data.mean, data.std, torch.device("cpu"))
    with torch.no_grad():
        return network(batch.views[0])[0]


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_attention_has_a_row_a_network_and_a_column_a_map(networks, data):
    figure = attention_panel(networks, data, 3)
    assert [title for title in titles(figure) if title] == ["layer1", "layer2", "layer3"]
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == ["teacher", "student"]
    image, first = figure.axes[:2]
    assert torch.equal(torch.tensor(image.images[0].get_array()), data.test.images[3].float().mean(0))
    assert torch.tensor(first.images[-1].get_array()).norm().item() == pytest.approx(1, abs=1e-5)


def test_class_activation_maps_average_to_the_logits_of_the_first_networks_classes(networks, data):
    figure = class_activation_panel(networks, data, 2, count=2)
    best = logits(networks["teacher"], data, 2).topk(2).indices
    assert [title for title in titles(figure) if title] == [data.class_names[c] for c in best.tolist()]
    for row, network in enumerate(networks.values()):
        expected = (logits(network, data, 2) - network.fc.bias.detach())[best].tolist()
        shown = [axes.images[-1].get_array().mean() for axes in figure.axes[3 * row + 1 : 3 * row + 3]]
        assert shown == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_levels_are_pooled_from_the_maps_before_the_relu(networks, data):
    figure = review_levels(networks["teacher"], data, 1)
    side = data.image_size
    assert titles(figure)[:4] == [f"{side} × {side}", "4 × 4", "2 × 2", "1 × 1"]
    whole, quarters = (torch.tensor(axes.images[0].get_array()) for axes in (figure.axes[0], figure.axes[2]))
    assert whole.min() < 0
    torch.testing.assert_close(quarters[0, 0], whole[: side // 2, : side // 2].mean())


def test_cells_are_coloured_by_the_verdict_and_thick_if_it_is_not_the_global_one(networks, data):
    predicted = logits(networks["teacher"], data, 0).argmax().item()
    other = (predicted + 1) % 10
    for label, colour in ((predicted, CORRECT), (other, WRONG)):
        relabelled = replace(data.test, labels=torch.full_like(data.test.labels, label))
        figure = cell_panel(networks["teacher"], replace(data, test=relabelled), 0, (1, 2))
        (whole,), cells = (axes.patches for axes in figure.axes)
        text = figure.axes[0].texts[0]
        assert (text.get_text(), text.get_color()) == (data.class_names[predicted], colour)
        assert whole.get_linewidth() == 1
        assert len(cells) == 4
        for cell, name in zip(cells, figure.axes[1].texts, strict=True):
            right = name.get_text() == data.class_names[label]
            assert name.get_color() == (CORRECT if right else WRONG)
            assert (cell.get_linewidth() > 1) == (right != (colour == CORRECT))


def test_networks_are_left_as_they_were(networks, data):
    network = networks["teacher"].train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cell_panel(network, data)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    network.eval()

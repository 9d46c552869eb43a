"""Moving averages of parameters: the formula, its limits, and what they leave alone."""

import pytest
import torch
from torch import nn

from kdhelpers.methods.parts.ema import ema_update


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)).double()


def moved(momentum):
    """The averages before and after `ema_update`, and the source."""
    average, source = network(0).requires_grad_(False), network(1)
    before = [parameter.clone() for parameter in average.parameters()]
    ema_update(average.parameters(), source.parameters(), momentum)
    return list(average.parameters()), before, [parameter.detach() for parameter in source.parameters()]


def test_it_is_the_formula():
    for now, before, source in zip(*moved(0.9), strict=True):
        expected = [
            0.9 * a + 0.1 * b for a, b in zip(before.flatten().tolist(), source.flatten().tolist(), strict=True)
        ]
        assert now.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_momentum_0_copies_and_1_changes_no_bit():
    now, before, source = moved(0.0)
    assert all(map(torch.equal, now, source))
    assert not any(map(torch.equal, now[:1], before[:1]))
    now, before, _ = moved(1.0)
    assert all(map(torch.equal, now, before))


def test_batchnorms_statistics_and_the_source_stay_and_no_graph_grows():
    average, source = network(0).requires_grad_(False), network(1)
    source(torch.randn(5, 3, 3, 3).double())  # moves the source's statistics
    buffers = {name: value.clone() for name, value in average.named_buffers()}
    wanted = [parameter.clone() for parameter in source.parameters()]
    ema_update(average.parameters(), source.parameters(), 0.5)
    assert all(torch.equal(value, buffers[name]) for name, value in average.named_buffers())
    assert all(map(torch.equal, source.parameters(), wanted))
    assert not any(parameter.requires_grad or parameter.grad_fn for parameter in average.parameters())


def test_lists_of_different_length_are_refused():
    with pytest.raises(RuntimeError, match="same number of tensors"):
        ema_update(network(0).requires_grad_(False).parameters(), [], 0.9)

import math

import pytest
import torch
from lion_pytorch import Lion as ReferenceLion
from torch.utils._python_dispatch import TorchDispatchMode

from kdhelpers.training.optim import (
    DEFAULT_LR_AND_DECAY,
    OPTIMIZERS,
    build_optimizer,
    described,
    learning_rate,
    starting_point,
)


def test_cosine_starts_at_the_peak_and_ends_at_final():
    assert learning_rate("cosine", {"final": 0.1}, 2.0, 0, 10) == 2.0
    assert learning_rate("cosine", {"final": 0.1}, 2.0, 10, 10) == pytest.approx(0.2)
    assert learning_rate("cosine", {}, 2.0, 2.5, 10) == pytest.approx(1 + math.cos(math.pi / 4))


def test_multistep_defaults_are_the_benchmarks_milestones():
    rates = [learning_rate("multistep", {}, 0.05, e, 240) for e in (149.99, 150, 179.9, 180, 209.9, 210, 239)]
    assert rates == pytest.approx([0.05, 0.005, 0.005, 5e-4, 5e-4, 5e-5, 5e-5])
    assert learning_rate("multistep", {"milestones": [3], "gamma": 0.5}, 1.0, 3, 10) == 0.5


def test_warmup_rises_linearly_then_leaves_the_schedule_alone():
    assert learning_rate("constant", {}, 1.0, 1, 10, warmup_epochs=4) == pytest.approx(0.25)
    assert learning_rate("constant", {}, 1.0, 4, 10, warmup_epochs=4) == 1.0
    first = learning_rate("constant", {}, 1.0, 0, 10, warmup_epochs=4, step=0.01)  # no step is wasted at zero
    assert first == pytest.approx(0.0025)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion"])
def test_each_optimiser_steps_down_a_quadratic_and_skips_frozen_parameters(name):
    weight, frozen = torch.nn.Parameter(torch.tensor([3.0])), torch.nn.Parameter(torch.ones(1), requires_grad=False)
    optimizer = build_optimizer(name, [weight, frozen], 0.1, 0.0, {})
    for _ in range(5):
        optimizer.zero_grad(set_to_none=True)
        weight.square().sum().backward()
        optimizer.step()
    assert abs(weight.item()) < 2.6
    assert frozen.item() == 1


def test_lion_steps_are_exactly_the_learning_rate():
    weight = torch.nn.Parameter(torch.tensor([3.0, -2.0, 1e-6]))
    optimizer = build_optimizer("lion", [weight], 0.01, 0.0, {})
    before = weight.detach().clone()
    weight.square().sum().backward()
    optimizer.step()
    torch.testing.assert_close((weight - before).abs(), torch.full((3,), 0.01))


@pytest.mark.parametrize(("options", "beta1", "beta2"), [({}, 0.9, 0.99), ({"beta1": 0.8, "beta2": 0.95}, 0.8, 0.95)])
def test_lion_equals_its_definition(options, beta1, beta2):
    """Chen et al. 2023, algorithm 2, written out, with its own betas where none are given."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(7, generator=generator, dtype=torch.float64))
    optimizer = build_optimizer("lion", [weight], 0.01, 0.3, options)
    expected, momentum = weight.detach().clone(), torch.zeros(7, dtype=torch.float64)
    for _ in range(30):
        weight.grad = torch.randn(7, generator=generator, dtype=torch.float64)
        direction = (beta1 * momentum + (1 - beta1) * weight.grad).sign()
        expected = expected - 0.01 * (direction + 0.3 * expected)
        momentum = beta2 * momentum + (1 - beta2) * weight.grad
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-12)


def layers(seed=0):
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 3))
    return layers.to(memory_format=torch.channels_last)


def set_gradients(network, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator) * scale)


def bits(network, optimizer):
    """Parameters and states as integers."""
    states = [value for state in optimizer.state.values() for value in state.values()]
    return [value.detach().clone().view(torch.int32) for value in (*network.parameters(), *states)]


@pytest.mark.parametrize("rate_is_a_tensor", [False, True])
def test_lion_has_the_bits_of_lion_pytorch(rate_is_a_tensor):
    """With a rate as a float32 tensor, 1 - lr decay is rounded once more: at most one unit in the last place a step."""
    ours, theirs = layers(), layers()
    optimizer = build_optimizer("lion", ours.parameters(), 6e-4, 0.1, {})
    reference = ReferenceLion(theirs.parameters(), 6e-4, (0.9, 0.99), weight_decay=0.1)
    for step in range(20):
        rate = 6e-4 * (1 - step / 40)
        optimizer.param_groups[0]["lr"] = torch.tensor(rate) if rate_is_a_tensor else rate
        reference.param_groups[0]["lr"] = rate
        ours.load_state_dict(theirs.state_dict())
        for network, solver in ((ours, optimizer), (theirs, reference)):
            set_gradients(network, step)
            solver.step()
        for found, expected in zip(bits(ours, optimizer), bits(theirs, reference), strict=True):
            assert (found - expected).abs().max() <= rate_is_a_tensor


def test_lion_continues_a_checkpoint_of_lion_pytorch():
    ours, theirs = layers(), layers()
    optimizer = build_optimizer("lion", ours.parameters(), 6e-4, 0.1, {})
    reference = ReferenceLion(theirs.parameters(), 6e-4, (0.9, 0.99), weight_decay=0.1)
    set_gradients(theirs, 0)
    reference.step()
    ours.load_state_dict(theirs.state_dict())
    optimizer.load_state_dict(reference.state_dict())
    assert optimizer.state_dict()["param_groups"][0].keys() >= {"lr", "betas", "weight_decay"}
    for network, solver in ((ours, optimizer), (theirs, reference)):
        set_gradients(network, 1)
        solver.step()
    assert all(map(torch.equal, bits(ours, optimizer), bits(theirs, reference)))


class Operators(TorchDispatchMode):
    """Counts the operators dispatched; a value read by the host is an error."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "the host waits for the device"
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion"])
def test_scaled_gradients_act_as_plain_ones_and_infinite_ones_change_nothing_without_a_host_wait(name):
    scaled, plain = layers(), layers()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    solvers = [build_optimizer(name, network.parameters(), 1e-3, 0.1, {}) for network in (scaled, plain)]
    for seed, poison in ((0, None), (1, math.inf), (2, None), (3, math.nan), (4, -math.inf), (5, None)):
        scaler.scale(torch.ones(()))  # makes the scale on first use
        scale = scaler.get_scale()
        set_gradients(scaled, seed, scale)
        set_gradients(plain, seed)
        before = bits(scaled, solvers[0])
        if poison is not None:
            scaled[0].weight.grad[1, 2, 0, 1] = poison
        with Operators():
            scaler.step(solvers[0])
        if poison is None:
            solvers[1].step()
        else:
            assert all(map(torch.equal, bits(scaled, solvers[0]), before))
        scaler.update()
        assert scaler.get_scale() == (scale if poison is None else scale / 2)
    assert all(map(torch.equal, bits(scaled, solvers[0]), bits(plain, solvers[1])))


def test_lion_dispatches_as_many_operators_for_many_layers_as_for_few():
    """On a GPU, one foreach operator is a few launches for all parameters; the CPU splits it, so meta tensors count."""
    counts = []
    for count in (2, 9):
        network = torch.nn.Sequential(*(torch.nn.Linear(3, 3, device="meta") for _ in range(count)))
        optimizer = build_optimizer("lion", network.parameters(), torch.zeros((), device="meta"), 0.1, {})
        for _ in range(2):  # the first one makes the momenta
            for p in network.parameters():
                p.grad = torch.empty_like(p)
            with Operators() as operators:
                optimizer.step()
        counts.append(operators.count)
    assert counts[0] == counts[1] < 16


def test_adamw_lets_a_graph_capture_its_steps():
    optimizer = build_optimizer("adamw", layers().parameters(), 1e-3, 0.1, {})
    assert optimizer.param_groups[0]["capturable"]
    assert optimizer.param_groups[0]["fused"]


def test_every_optimiser_says_where_to_begin_and_lions_start_keeps_its_rule():
    assert set(DEFAULT_LR_AND_DECAY) == set(OPTIMIZERS) == {name for name, _ in described()}
    (lr, decay), (adamw_lr, adamw_decay) = DEFAULT_LR_AND_DECAY["lion"], DEFAULT_LR_AND_DECAY["adamw"]
    assert 3 <= adamw_lr / lr <= 10
    assert 3 <= decay / adamw_decay <= 10
    assert starting_point("lion") == (lr, decay)
    assert starting_point("lion", 0.5, 0) == (0.5, 0)  # what the user gives stands; no decay is a choice too
    with pytest.raises(ValueError, match=r"optimizer = lyon: unknown; did you mean lion\? known: sgd, adamw, lion"):
        starting_point("lyon")


def test_a_starting_point_takes_numbers_as_yaml_writes_them():
    assert starting_point("lion", "1e-3", "1e-2") == (0.001, 0.01)
    assert starting_point("lion", "0", "-1") == DEFAULT_LR_AND_DECAY["lion"]
    with pytest.raises(ValueError, match="weight_decay = 'none': is not a number; write one such as 0.01"):
        starting_point("lion", 0, "none")


def test_sgd_nesterov_equals_its_definition():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = build_optimizer("sgd", [weight], 0.1, 0.01, {"momentum": 0.9, "nesterov": True})
    value, velocity = 1.0, 0.0
    for step in range(3):
        weight.grad = torch.tensor([2.0])
        optimizer.step()
        gradient = 2.0 + 0.01 * value
        velocity = gradient if step == 0 else 0.9 * velocity + gradient
        value -= 0.1 * (gradient + 0.9 * velocity)
    assert weight.item() == pytest.approx(value)

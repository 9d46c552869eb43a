"""What a step of a method costs: images are counted, times are relative, memory is that of the backward pass."""

import pytest
import torch
from torch import nn

from kdhelpers.methods import METHODS
from kdhelpers.models import build_model
from kdhelpers.training.cost import StepCost, noise, step_costs
from kdhelpers.training.run import Run


@pytest.fixture(scope="module")
def costs():
    common = {"dataset": "digits", "model": "resnet8", "batch_size": 8, "epochs": 30, "selection": "last"}
    common |= {"augmentation": "crop=2 cutout=4"}  # MLKD needs a strong view
    runs = {
        name: Run(**common, method=name, teacher="resnet8" if METHODS[name].needs_teacher else None)
        for name in ("si", "lm", "hints", "crd_inbatch", "conkd", "mlkd", "simkd")
    }
    return step_costs(runs, "lm", build_model("resnet8", 10), noise("digits", 20, 16, 10), 2, "cpu")


def test_ratios_are_medians_of_neighbouring_steps():
    cost = StepCost((1.0, 30.0, 3.0), (2.0, 10.0, 2.0), 1, 1, 0.0, 0)  # a slow round slows both steps
    assert cost.ratio == 1.5


def test_images_of_both_networks_are_counted_per_labelled_image(costs):
    images = {name: (cost.student_images, cost.teacher_images) for name, cost in costs.items()}
    one = (1, 1)
    assert images == {
        "si": (1, 0), "lm": one, "hints": one, "crd_inbatch": one, "conkd": (2, 2), "mlkd": (2, 2), "simkd": one,
    }  # fmt: skip


def test_two_views_keep_twice_the_memory_and_heads_are_counted(costs):
    assert costs["conkd"].kept_mib == pytest.approx(2 * costs["lm"].kept_mib, rel=0.1)
    assert costs["lm"].trained_parameters == 0
    assert costs["crd_inbatch"].trained_parameters == 2 * (64 * 128 + 128)


def test_batches_are_whole_and_the_epochs_go_on(costs):
    """20 images are two batches of 8 and a rest, which is not timed; three steps need a second epoch."""
    assert all(len(cost.seconds) == len(cost.reference_seconds) == 2 for cost in costs.values())


def test_noise_has_the_shape_of_the_data_set_and_a_limit(monkeypatch):
    data = noise("cifar100", 1000, 8, 100)
    assert data.train.images.shape == (1000, 3, 8, 8)
    assert data.num_classes == 100
    monkeypatch.setattr("kdhelpers.training.cost.MOST_BYTES", 3 * 8 * 8 * 300)
    assert len(noise("cifar100", 1000, 8, 100).train) == 300


def test_the_network_of_the_caller_is_not_trained(costs):
    network = build_model("resnet8", 10)
    before = [weight.clone() for weight in network.parameters()]
    run = Run(dataset="digits", model="resnet8", batch_size=8, epochs=2, method="lm", teacher="resnet8")
    step_costs({"lm": run}, "lm", network, noise("digits", 20, 16, 10), 1, "cpu")
    assert all(torch.equal(now, then) for now, then in zip(network.parameters(), before, strict=True))
    assert isinstance(network, nn.Module)

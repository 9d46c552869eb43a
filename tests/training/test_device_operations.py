"""A training step asks nothing of the device that makes the host wait, and nothing that Apple's GPU lacks."""

from dataclasses import replace

import pytest
import torch
from device_checks import DeviceCheck
from training_fixtures import QUICK, training_of

from kdhelpers import Run, build_model
from kdhelpers.data import Unlabelled
from kdhelpers.methods import METHODS
from kdhelpers.training import student, teacher
from kdhelpers.training.optim import OPTIMIZERS
from kdhelpers.training.teacher import Teacher

SMALL = {
    "crd": {"negatives": 60},
    "cocord": {"kd_weight": 1.0, "queue_size": 64, "hidden_dim": 32, "dim": 32, "predictor_dim": 16},
}


def begun(data, method, **changes):
    """A training after its first step, in which optimiser and method make their buffers; and the next batch."""
    kind, hyperparameters = METHODS[method], SMALL.get(method, {})
    taught = {"teacher": "resnet8"} if kind.needs_teacher else {}
    if kind(**hyperparameters).uses_unlabelled:
        images = data.train.images[:50].contiguous()
        data = replace(data, unlabelled=Unlabelled(images, [str(number) for number in range(50)], "train:50"))
        taught |= {"unlabelled": "train:50", "unlabelled_batch_size": 32}
    fields = {"method": method, "hyperparameters": hyperparameters, "epochs": 5, "selection": "last"}
    if kind.weak_view:
        fields["augmentation"] = "crop flip cutout"
    torch.manual_seed(0)
    network = build_model("resnet8", data.num_classes)
    network = Teacher(network, pre_activations="pre_activations" in kind.reads) if taught else None
    training = training_of(Run(**QUICK | fields | taught | changes), data, network)
    training.epochs_done = training.method.stage_epochs  # the last stage trains the whole student
    training.begin_epoch()
    first, second, *_ = training.batches.epoch(1)
    training.step(first)
    return training, second


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_every_method_neither_waits_nor_computes_in_float64(root, data, method):
    training, batch = begun(data, method)
    with DeviceCheck() as operations:
        training.step(batch)
    assert operations.count["convolution"] > 8
    assert operations.count["_fused_sgd_"] == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_step_of_every_optimiser_in_half_precision_does_not_wait(root, data, optimizer, precision):
    training, batch = begun(data, "lm", optimizer=optimizer, precision=precision, lr=1e-3)
    before = [parameter.clone() for parameter in training.network.parameters()]
    with DeviceCheck():
        training.step(batch)
    assert any(not torch.equal(*pair) for pair in zip(before, training.network.parameters(), strict=True))


def test_networks_have_the_layout_of_the_device(root, data, monkeypatch):
    for module in (student, teacher):
        monkeypatch.setattr(module, "memory_format", lambda device: torch.contiguous_format)
    training, _ = begun(data, "lm")
    for network in (training.network, training.module.teacher.features):
        kernels = [parameter for parameter in network.parameters() if parameter.ndim == 4 and parameter.shape[1] > 3]
        assert all(kernel.is_contiguous() for kernel in kernels)
    monkeypatch.undo()
    kernels = [p for p in Teacher(build_model("resnet8", 10)).features.parameters() if p.ndim == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)

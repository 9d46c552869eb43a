"""Validation while a training runs: the accuracy and the loss of the whole held-out split, in any batch size."""

import pytest
import torch
from training_fixtures import QUICK, training_of

from kdhelpers import Run, infer
from kdhelpers.data import batches
from kdhelpers.evaluation import validation
from kdhelpers.evaluation.metrics import negative_log_likelihood, top_k_pct
from kdhelpers.evaluation.validation import top1_and_loss


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batch_size", [7, 500])
def test_it_is_the_metrics_of_the_held_out_images(root, data, monkeypatch, precision, batch_size):
    monkeypatch.setitem(validation.BATCH_SIZES, "cpu", batch_size)
    training = training_of(Run(**QUICK), data)
    training.module.train()
    accuracy, loss = top1_and_loss(training.student, training.batches, precision)
    expected = infer(training.student, data, "val", precision=precision)
    assert accuracy == pytest.approx(top_k_pct(expected))
    assert loss == pytest.approx(negative_log_likelihood(expected), rel=1e-2 if precision == "bf16" else 1e-6)
    assert training.student.training, "the network goes on as it was"


def test_students_share_the_held_out_images_and_move_them_once(root, data, monkeypatch):
    training = training_of(Run(**QUICK), data)
    first = training.batches.held_out
    assert training.batches.held_out is first
    assert torch.equal(first.images, data.val.images)


def test_saturated_logits_have_a_finite_loss(root, data):
    """float64 keeps the loss of logits whose float32 softmax is 0."""
    training = training_of(Run(**QUICK), data)
    with torch.no_grad():
        training.network.fc.weight.mul_(1e6)
    accuracy, loss = top1_and_loss(training.student, training.batches, "fp32")
    assert 0 <= accuracy <= 100
    assert 1e3 < loss < float("inf")


@pytest.mark.parametrize(("free", "place"), [(4.0, "meta"), (3.9, "cpu")])
def test_held_out_images_stay_on_the_device_if_a_quarter_of_its_free_memory_holds_them(
    root, data, monkeypatch, free, place
):
    loader = training_of(Run(**QUICK), data).batches
    loader.device = torch.device("meta")
    monkeypatch.setattr(batches, "free_memory", lambda device: free * data.val.images.nbytes)
    assert loader.held_out.images.device.type == place
    assert loader.held_out.labels.device.type == "meta"

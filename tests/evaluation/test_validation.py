"""Validation during training: the metrics of `infer`, from images that are moved to the device once."""

import pytest
import torch

from kdhelpers import build_model
from kdhelpers.evaluation import validation
from kdhelpers.evaluation.metrics import negative_log_likelihood, top_k_pct
from kdhelpers.evaluation.predictions import infer
from kdhelpers.models import FeatureExtractor


def test_it_gives_the_metrics_of_infer_and_keeps_the_mode(data, monkeypatch):
    monkeypatch.setitem(validation.BATCH_SIZES, "cpu", 16)
    network = build_model("resnet8", data.num_classes).train()
    expected = infer(network, data, "val")
    accuracy, loss = validation.Validation(data, torch.device("cpu")).top1_and_loss(FeatureExtractor(network), "fp32")
    assert network.training
    assert accuracy == pytest.approx(top_k_pct(expected))
    assert loss == pytest.approx(negative_log_likelihood(expected), rel=1e-5)


def test_an_accelerator_keeps_images_and_labels(data, monkeypatch):
    moved = []
    monkeypatch.setattr(validation, "to_device", lambda values, device: moved.append(values.dtype) or values)
    validation.Validation(data, torch.device("mps"))
    assert moved == [torch.uint8, torch.int64]

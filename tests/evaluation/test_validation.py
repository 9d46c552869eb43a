"""Validation during training."""

import pytest
import torch

from kdhelpers.evaluation import validation
from kdhelpers.evaluation.validation import Validation


@pytest.mark.parametrize(("free", "place"), [(4.0, "meta"), (3.9, "cpu")])
def test_held_out_images_stay_on_the_device_if_they_take_a_quarter_of_its_free_memory_at_most(
    data, monkeypatch, free, place
):
    monkeypatch.setattr(validation, "free_memory", lambda device: free * data.val.images.nbytes)
    held = Validation(data, torch.device("meta"))
    assert held._split.images.device.type == place
    assert held._split.labels.device.type == "meta"

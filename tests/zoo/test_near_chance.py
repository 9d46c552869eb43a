"""Weights of another class order or normalisation are refused, with the likely cause, unless they are forced."""

import pytest
import torch
from click.testing import CliRunner

from kdhelpers import artifacts
from kdhelpers.cli.commands import main
from kdhelpers.data import Data, Split
from kdhelpers.models import build_model
from kdhelpers.weights.load import describe_teacher
from kdhelpers.zoo import fetch
from kdhelpers.zoo.register import register

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@pytest.fixture
def known(root):
    """Weights, and images labelled by them."""
    torch.manual_seed(0)
    network = build_model("resnet8", 10).eval()
    images = torch.randint(0, 256, (200, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        logits = network((images / 255 - 0.5) / 0.5)
        network.fc.bias -= logits.mean(0)  # so that every class is predicted
        labels = (logits - logits.mean(0)).argmax(1)
    torch.save(network.state_dict(), root / "known.pth")
    return root / "known.pth", images, labels


def data_of(images, labels, classes=10):
    split, none = Split(images, labels), Split(images[:0], labels[:0])
    return Data("mine", split, none, split, [str(n) for n in range(classes)], None, None, MEAN, STD)


def test_weights_of_the_images_are_taken(known):
    path, images, labels = known
    record = register(path, "resnet8", data_of(images, labels))
    assert (record["notes"], record["metrics"]["test_top1_pct"]) == ([], 100)


def test_another_order_of_the_classes_is_named(known):
    path, images, labels = known
    other = data_of(images, (labels + 1) % 10)
    with pytest.raises(
        ValueError, match=r"known.pth: near chance: 0.0 % .* chance is 10.0 %; .* the order of its classes"
    ):
        register(path, "resnet8", other)
    assert not (artifacts.root() / "json_results").exists()
    record = register(path, "resnet8", other, force=True)
    assert "with the best one it has 100.0 %" in record["notes"][0]
    assert describe_teacher("resnet8", "mine")["notes"] == record["notes"]


def test_another_normalisation_is_named_and_the_command_can_force(known, monkeypatch):
    path, images, _ = known
    labels = torch.arange(200) % 10
    monkeypatch.setattr(fetch, "load_data", lambda name, val_fraction: data_of(images, labels))
    command = ["teachers", "--file", str(path), "--model", "resnet8", "--dataset", "mine"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "its normalisation or its images are others, or it is untrained; use weights" in result.output
    assert CliRunner().invoke(main, [*command, "--force"]).exit_code == 0


@pytest.mark.parametrize(("classes", "refused"), [(12, 17), (2, 54), (100, 8)])
def test_near_chance_is_a_tenth_of_the_way_to_all(classes, refused):
    from kdhelpers.evaluation.predictions import Predictions
    from kdhelpers.zoo.register import _near_chance

    labels = torch.zeros(100, dtype=torch.int64)
    logits = torch.zeros(100, classes)
    logits[refused:, 1] = 1
    data = data_of(torch.zeros(100, 3, 8, 8, dtype=torch.uint8), labels, classes)
    predictions = Predictions(logits, logits, labels, torch.arange(100))
    assert f"near chance: {refused}.0 %" in _near_chance(predictions, data)

"""Networks of weight files without a description are identified by their tensors."""

import pytest
import torch

from kdhelpers import build_model, load_model
from kdhelpers.models import MODELS, check_model, identify_architecture


@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_identified_as_itself(name):
    with torch.device("meta"):
        state = build_model(name, 7).state_dict()
    assert identify_architecture(state) == (name, 7, check_model(name))


def test_stock_weights_of_torchvision_load_unchanged_with_a_report(root, capsys):
    from torchvision.models import resnet18

    stock = resnet18(num_classes=100).eval()
    path = root / "mine.pth"
    torch.save(stock.state_dict(), path)
    network = load_model(str(path))
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(network(images), stock(images))
    assert "its tensors fit resnet18, stem imagenet, base_channels 64, 100 classes" in capsys.readouterr().err


def test_weights_with_the_imagenet_stem_load_into_the_stock_network():
    from torchvision.models import resnet18

    network, stock = build_model("resnet18", 100, stem="imagenet").eval(), resnet18(num_classes=100).eval()
    stock.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(stock(images), network(images))


def test_unknown_tensors_are_refused_with_the_nearest_network_and_the_remedy(root):
    state = build_model("resnet20", 10).state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(1)
    path = root / "strange.pth"
    torch.save(state, path)
    with pytest.raises(ValueError, match="strange.pth: has no description.*nearest: resnet20, .*give model="):
        load_model(str(path))
    torch.save({"fc.weight": "text"}, path)
    with pytest.raises(ValueError, match="not a state_dict of tensors"):
        load_model(str(path))
    with pytest.raises(ValueError, match="these 1 tensors do not fit a network of the registry$"):
        identify_architecture({"x": torch.zeros(1)})


def test_a_file_from_before_batches_were_counted_is_read(root, capsys):
    network = build_model("resnet18", 10).eval()
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, root / "old.pth")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_model(str(root / "old.pth"))(images), network(images))
    assert "resnet18, stem cifar, base_channels 64, 10 classes" in capsys.readouterr().err


def test_arguments_of_the_caller_are_never_overruled(root):
    path = root / "strange.pth"
    torch.save(build_model("resnet18", 10).state_dict(), path)
    with pytest.raises(ValueError, match="give num_classes with model = resnet34"):
        load_model(str(path), model="resnet34")
    with pytest.raises(ValueError, match="name the right model and options such as stem"):
        load_model(str(path), model="resnet18", num_classes=10, stem="imagenet")


def test_a_classifier_without_shape_fits_nothing():
    with pytest.raises(ValueError, match="do not fit a network of the registry"):
        identify_architecture({"fc.weight": torch.zeros(())})

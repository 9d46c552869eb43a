"""ImageNet weights, from a stand-in for torchvision's download cache; nothing here touches the network."""

import urllib.error

import pytest
import torch

from kdhelpers.models import build_model

FILE = "resnet18-f37072fd.pth"  # IMAGENET1K_V1


@pytest.fixture
def cache(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def imagenet_model(num_classes, **options):
    return build_model("resnet18", num_classes, pretrained=True, stem="imagenet", **options)


def test_weights_are_taken_and_a_classifier_of_another_size_stays_new(cache):
    torch.manual_seed(0)
    stored = build_model("resnet18", num_classes=1000, stem="imagenet").state_dict()
    torch.save(stored, cache / FILE)
    assert all(torch.equal(value, stored[key]) for key, value in imagenet_model(1000).state_dict().items())
    small = imagenet_model(10).state_dict()
    assert all(torch.equal(value, stored[key]) for key, value in small.items() if not key.startswith("fc."))
    assert small["fc.weight"].shape == (10, 512)
    assert small["fc.weight"].any()


def test_the_error_offline_gives_the_path_for_the_file(cache):
    with pytest.raises(FileNotFoundError) as refused:
        imagenet_model(10)
    message = str(refused.value)
    assert f"put https://download.pytorch.org/models/{FILE} at {cache / FILE}" in message
    assert "\n" not in message


class Gadget:
    def __reduce__(self):
        return print, ("a pickled object ran",)


@pytest.mark.parametrize("content", ["truncated", "pickled object"])
def test_damaged_or_unsafe_file_is_refused(cache, content, capsys):
    torch.save({"fc.bias": torch.zeros(1000), "gadget": Gadget()}, cache / FILE)
    if content == "truncated":
        (cache / FILE).write_bytes((cache / FILE).read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{FILE} is damaged; delete it"):
        imagenet_model(10)
    assert "ran" not in capsys.readouterr().out

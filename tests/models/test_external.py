"""Networks of torchvision, of timm and by Python path: built for the data, with their nodes, or refused in a line."""

import copy
import sys

import pytest
import torch
from torch import nn

from kdhelpers.models import (
    FeatureExtractor,
    build_model,
    check_model,
    count_macs,
    count_parameters,
    fold_batchnorm,
    rebuild_model,
    require_small,
)
from kdhelpers.models.external import libraries
from kdhelpers.python_paths import FromFile, mark, use_network

VIT = {"patch_size": 4, "depth": 3, "embed_dim": 48, "num_heads": 3}
CODE = """
from torch import nn

class TinyNet(nn.Module):
    def __init__(self, num_classes, width=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())
        self.pool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(width, num_classes)

    def forward(self, images):
        return self.classifier(self.pool(self.body(self.stem(images))).flatten(1))

def five():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))

def two_heads(num_classes):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, num_classes), nn.Linear(3, num_classes)
        def forward(self, images):
            mean = images.mean((2, 3))
            return self.a(mean) + self.b(mean)
    return Two()

number = 3
"""


@pytest.fixture
def own(importable):
    return importable("own_networks", CODE)


def outputs(network, size=32, **options):
    with torch.no_grad():
        return FeatureExtractor(network.eval(), **options)(torch.randn(2, 3, size, size))


def shapes(network, size=32):
    return {name: tuple(values.shape[1:]) for name, values in outputs(network, size).feature_maps.items()}


def test_a_convnet_of_torchvision_has_a_map_of_each_size():
    network = build_model("torchvision:resnet18", 7)
    stages = {"layer1": (64, 8, 8), "layer2": (128, 4, 4), "layer3": (256, 2, 2), "layer4": (512, 1, 1)}
    assert shapes(network) == {"relu": (64, 16, 16)} | stages
    found = outputs(network, pre_activations=True)
    assert found.logits.shape == (2, 7)
    torch.testing.assert_close(found.final_map.mean((2, 3)), found.embedding)
    torch.testing.assert_close(found.pre_activations["layer2"].relu(), found.feature_maps["layer2"])
    assert found.pre_activations["layer2"].min() < 0


def test_squeeze_and_excitation_is_not_a_stage():
    network = build_model("torchvision:mobilenet_v3_small", 10, image_size=64)
    sides = [16, 8, 4, 2]
    assert [shape[1] for shape in shapes(network, 64).values()] == [32, *sides]
    assert network.return_nodes.classifier == "classifier.3"
    assert network.return_nodes.pooling == ""  # its embedding is not the average of the final map
    assert outputs(network, 64).embedding.shape == (2, 1024)


@pytest.mark.parametrize("name", ["torchvision:convnext_tiny", "torchvision:densenet121", "torchvision:swin_t"])
def test_stages_are_taken_at_their_ends(name):
    assert [shape[1:] for shape in shapes(build_model(name, 10)).values()][-4:] == [(8, 8), (4, 4), (2, 2), (1, 1)]


def test_torchvisions_transformer_takes_the_image_size():
    network = build_model("torchvision:vit_b_32", 10, image_size=64)
    maps = shapes(network, 64)
    assert list(maps.values()) == [(768, 2, 2)] * 13
    assert network.return_nodes.pooling == ""


class TestTimm:
    @pytest.fixture(autouse=True)
    def _timm(self):
        pytest.importorskip("timm")

    def test_tokens_are_maps_without_the_class_token(self):
        network = build_model("timm:vit_tiny_patch16_224", 10, **VIT)
        maps = shapes(network)
        assert maps == dict.fromkeys(["patch_embed", "blocks.0", "blocks.1", "blocks.2"], (48, 8, 8))
        kept = {}
        network.blocks[1].register_forward_hook(lambda module, inputs, output: kept.update(tokens=output))
        found = outputs(network)
        assert kept["tokens"].shape == (2, 65, 48)
        torch.testing.assert_close(found.feature_maps["blocks.1"][1, :, 2, 5], kept["tokens"][1, 1 + 2 * 8 + 5])
        torch.testing.assert_close(found.embedding @ network.head.weight.T + network.head.bias, found.logits)

    def test_registers_are_left_out_too(self):
        small = VIT | {"patch_size": 16}
        maps = shapes(build_model("timm:vit_small_patch14_reg4_dinov2", 10, **small))
        assert maps["blocks.2"] == (48, 2, 2)

    def test_channels_last_maps_are_turned(self):
        maps = shapes(build_model("timm:swin_tiny_patch4_window7_224", 10))
        assert list(maps.values())[1] == (96, 8, 8)

    def test_attention_is_counted(self):
        network = build_model("timm:vit_tiny_patch16_224", 10, **VIT)
        tokens, width = 65, 48
        block = tokens * 12 * width**2 + 2 * tokens**2 * width
        assert count_macs(network, 32) == 64 * 3 * 4**2 * width + 3 * block + 10 * width
        assert count_parameters(network) > 0

    def test_folding_leaves_layer_norm_alone(self):
        network = build_model("timm:vit_tiny_patch16_224", 10, **VIT).eval()
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(fold_batchnorm(network)(images), network(images))

    def test_nodes_can_be_chosen(self):
        chosen = {"feature_maps": "blocks.2, patch_embed", "embedding": "head"}
        network = build_model("timm:vit_tiny_patch16_224", 10, **VIT, **chosen)
        assert list(network.return_nodes.feature_maps) == ["patch_embed", "blocks.2"]
        with pytest.raises(ValueError, match=r"feature_maps: 'blocks.9' outputs no map .*did you mean blocks.2"):
            build_model("timm:vit_tiny_patch16_224", 10, **VIT, feature_maps=["blocks.9"])
        with pytest.raises(ValueError, match="embedding: 'norm' does not output one logit per class"):
            build_model("timm:vit_tiny_patch16_224", 10, **VIT, embedding="norm")

    def test_the_nearest_names_are_given(self):
        with pytest.raises(ValueError, match="timm has no such network; did you mean vit_tiny_patch16_224"):
            check_model("timm:vit_tiny_patch16_22")
        with pytest.raises(ValueError, match="no weights augre of vit_tiny_patch16_224; known: augreg_in21k_ft_in1k"):
            check_model("timm:vit_tiny_patch16_224.augre")

    @pytest.mark.parametrize("name", ["timm:hf-hub:evil/net", "timm:local-dir:/folder/net", "timm:../net", "timm:"])
    def test_addresses_and_paths_are_not_names(self, name):
        with pytest.raises(ValueError, match="timm has no such network|unknown"):
            check_model(name)

    @pytest.mark.parametrize("option", [{"checkpoint_path": "x.pth"}, {"pretrained": True}, {"pretrained_cfg": {}}])
    def test_options_that_could_name_a_file_are_refused(self, option):
        with pytest.raises(ValueError, match="must be a number"):
            check_model("timm:resnet18", options=option)

    def test_an_option_that_the_network_lacks_is_named(self):
        with pytest.raises(ValueError, match="cannot be built with image_size=32, depht=2 .*unexpected keyword"):
            build_model("timm:vit_tiny_patch16_224", 10, depht=2)

    def test_two_heads_are_refused(self):
        with pytest.raises(ValueError, match="no nn.Linear outputs the logits .*head_dist"):
            build_model("timm:deit_tiny_distilled_patch16_224", 10)

    def test_pretrained_weights_are_loaded_without_their_classifier(self, monkeypatch):
        import timm

        stored = timm.create_model("resnet10t", num_classes=1000).state_dict()
        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *args, **options: dict(stored))
        network = build_model("timm:resnet10t", 7, pretrained=True)
        assert torch.equal(network.layer2[0].conv1.weight, stored["layer2.0.conv1.weight"])
        assert network.fc.out_features == 7

    def test_without_network_the_weights_are_missed(self, monkeypatch):
        def offline(*args, **options):
            raise OSError("no route to host")

        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
        with pytest.raises(FileNotFoundError, match="neither stored nor downloaded .no route to host"):
            build_model("timm:resnet10t", 7, pretrained=True)


def test_without_timm_the_install_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="needs timm, which is not installed: pip install -r requirements-timm.txt"):
        check_model("timm:resnet18")


def test_pretrained_weights_of_torchvision(monkeypatch):
    from torchvision import models

    stored, asked = models.mobilenet_v3_small(num_classes=1000).state_dict(), []

    def download(url, **options):
        asked.append(url)
        return copy.copy(stored)

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    network = build_model("torchvision:mobilenet_v3_small", 7, pretrained=True)
    assert "mobilenet_v3_small" in asked[0]
    assert torch.equal(network.features[0][0].weight, stored["features.0.0.weight"])
    assert network.classifier[3].out_features == 7
    facts = libraries.library_facts("torchvision:mobilenet_v3_small", pretrained=True)
    assert facts["name"] == "torchvision"
    assert facts["weights"] == "IMAGENET1K_V1"


def test_a_tiny_image_is_reported_once(capsys):
    for _ in range(2):
        build_model("torchvision:mnasnet0_5", 10, image_size=32)
    assert capsys.readouterr().err.count("images of 32 px are 1x1 pixel from layers.16 on; take larger images") == 1


def test_a_size_that_a_network_does_not_take_is_named():
    with pytest.raises(ValueError, match="model = torchvision:alexnet: does not take images of 32 px"):
        build_model("torchvision:alexnet", 10)


def test_random_numbers_are_drawn_for_the_weights_alone():
    from torchvision import models

    torch.manual_seed(3)
    models.mnasnet0_5(num_classes=10)
    after = torch.rand(1)
    torch.manual_seed(3)
    build_model("torchvision:mnasnet0_5", 10, image_size=64)
    assert torch.equal(torch.rand(1), after)


def test_a_network_of_ones_own(own, tmp_path):
    network = build_model(f"{own}:TinyNet", 6, width=4)
    assert network.training
    assert shapes(network) == {"stem": (4, 32, 32), "body": (4, 15, 15)}
    assert network.return_nodes.pooling == "pool"
    options = check_model(f"{own}:TinyNet", options={"width": "4"})
    assert options["width"] == 4
    of_file = check_model_of_file(tmp_path / "own_networks.py")
    assert of_file == {"source": options["source"]}
    (tmp_path / "own_networks.py").write_text(CODE + "# edited\n")
    assert check_model(f"{own}:TinyNet")["source"] != options["source"]


def check_model_of_file(path):
    use_network(f"{path}:TinyNet")
    return check_model(f"{path}:TinyNet")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("five", {}, r"outputs \(5,\) for an image, the data have 10 classes; its last nn.Linear is 3, 5 wide"),
        ("two_heads", {}, "no nn.Linear outputs the logits"),
        ("number", {}, "is a int; name a class or function"),
        ("Missing", {}, "cannot be imported .AttributeError"),
        ("TinyNet", {"widht": 4}, "did you mean width"),
    ],
)
def test_faults_of_ones_own_network(own, name, options, message):
    with pytest.raises(ValueError, match=message):
        build_model(f"{own}:{name}", 10, **options)


def test_code_is_not_imported_because_a_file_names_it(own):
    named = mark({"run": {"model": f"{own}:TinyNet", "epochs": 3}})["run"]["model"]
    assert isinstance(named, FromFile)
    for build in (build_model, rebuild_model):
        with pytest.raises(ValueError, match=f"give model='{own}:TinyNet'.*--network {own}:TinyNet"):
            build(named, 10)
    with pytest.raises(ValueError, match="only code that you give is imported"):
        use_network(named)
    assert own not in sys.modules
    use_network(f"{own}:TinyNet")
    assert isinstance(rebuild_model(named, 10), nn.Module)


def test_an_unknown_name_gives_the_forms_of_others():
    with pytest.raises(ValueError, match="did you mean resnet20.*other networks: torchvision:NAME, timm:NAME"):
        build_model("resnet2O", 10)


def test_a_limit_of_parameters_holds_for_other_networks():
    parameters = require_small("torchvision:mnasnet0_5", 10, {}, 2_000_000)
    assert parameters == count_parameters(build_model("torchvision:mnasnet0_5", 10))
    with pytest.raises(ValueError, match="more than max_parameters = 1,000; take a smaller one"):
        require_small("torchvision:mnasnet0_5", 10, {}, 1000)

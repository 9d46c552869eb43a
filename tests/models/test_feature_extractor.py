"""FeatureExtractor returns the tensors of the network, leaves it unchanged, and survives copying, compiling and DDP."""

import copy
import gc
import pickle

import pytest
import torch
from torch import nn

from kdhelpers.models import FeatureExtractor, Outputs, build_model


class UserNetwork(nn.Module):
    """A user's network: modules in odd places, one shared activation, one module never called."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"first": nn.Conv2d(3, 4, 3), "second": nn.Conv2d(4, 6, 3)})
        self.relu = nn.ReLU()
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(6, 5)

    def forward(self, images):
        x = self.relu(self.body["first"](images))
        x = self.relu(self.body["second"](x))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def images():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def user_network():
    torch.manual_seed(0)
    return UserNetwork()


@pytest.fixture
def small():
    torch.manual_seed(0)
    return build_model("resnet8", num_classes=7)


def test_any_network_by_naming_modules(user_network, images):
    outputs = FeatureExtractor(user_network, {"a": "body.first", "b": "relu"}, classifier="head")(images)
    first = user_network.body["first"](images)
    second = user_network.body["second"](first.relu()).relu()
    embedding = second.mean((2, 3))
    assert isinstance(outputs, Outputs)
    assert list(outputs.feature_maps) == ["a", "b"]
    torch.testing.assert_close(outputs.feature_maps["a"], first, rtol=0, atol=0)
    torch.testing.assert_close(outputs.feature_maps["b"], second, rtol=0, atol=0)  # called twice: the last output
    torch.testing.assert_close(outputs.embedding, embedding, rtol=0, atol=0)
    torch.testing.assert_close(outputs.logits, user_network.head(embedding), rtol=0, atol=0)


def test_embedding_is_flat_before_a_convolutional_classifier(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1), nn.Flatten())
    assert FeatureExtractor(model, classifier="2")(images).embedding.shape == (4, 4)


def test_maps_survive_in_place_layers_above(small, images):
    outputs = FeatureExtractor(small.eval())(images)
    kept = {name: value.clone() for name, value in outputs.feature_maps.items()}
    stem = small.bn1(small.conv1(images)).relu()
    layer1 = small.layer1(stem.clone())
    torch.testing.assert_close(kept["stem"], stem, rtol=0, atol=0)
    torch.testing.assert_close(kept["layer1"], layer1, rtol=0, atol=0)
    sum(value.sum() for value in outputs.feature_maps.values()).backward()  # raises had autograd's copy changed


def test_the_network_is_untouched(small, images):
    keys, plain = list(small.state_dict()), small.eval()(images)
    extractor = FeatureExtractor(small)
    assert list(small.state_dict()) == keys
    torch.testing.assert_close(small(images), plain, rtol=0, atol=0)
    torch.testing.assert_close(extractor(images).logits, plain, rtol=0, atol=0)
    del extractor
    gc.collect()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in small.modules())


def test_two_extractors_of_one_network_do_not_mix(small, images):
    few, all_maps = FeatureExtractor(small.eval(), {"x": "layer2"}), FeatureExtractor(small)
    assert list(few(images).feature_maps) == ["x"]
    assert list(all_maps(images).feature_maps) == ["stem", "layer1", "layer2", "layer3"]


def test_several_views_share_one_graph(small, images):
    extractor = FeatureExtractor(small.eval())
    first, second = extractor(images), extractor(images.flip(3))
    assert not torch.equal(first.feature_maps["layer3"], second.feature_maps["layer3"])
    loss = ((first.embedding - second.embedding) ** 2).sum() + first.feature_maps["layer1"].sum()
    gradients = torch.autograd.grad(loss, list(small.parameters()), allow_unused=True)
    by_hand = FeatureExtractor(copy.deepcopy(small))
    views = by_hand(torch.cat([images, images.flip(3)]))
    whole = ((views.embedding[:4] - views.embedding[4:]) ** 2).sum() + views.feature_maps["layer1"][:4].sum()
    expected = torch.autograd.grad(whole, list(by_hand.model.parameters()), allow_unused=True)
    for got, want in zip(gradients, expected, strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_stop_at_computes_and_trains_nothing_above(small, images):
    extractor = FeatureExtractor(small)
    statistics = small.layer3[0].bn1.running_mean.clone()
    outputs = extractor(images, stop_at="layer2")
    assert outputs.logits is None
    assert outputs.embedding is None
    assert list(outputs.feature_maps) == ["stem", "layer1", "layer2"]
    assert torch.equal(small.layer3[0].bn1.running_mean, statistics)
    outputs.feature_maps["layer2"].sum().backward()
    assert small.layer2[0].conv1.weight.grad is not None
    assert small.layer3[0].conv1.weight.grad is None
    assert extractor(images).logits is not None  # the next forward goes all the way again


def test_an_error_of_the_network_passes_through_and_leaves_it_usable(small, images):
    extractor = FeatureExtractor(small)
    with pytest.raises(RuntimeError, match="channels"):
        extractor(images[:, :2])
    assert extractor(images).feature_maps["stem"].shape == (4, 16, 8, 8)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_extract_from_their_own_network(small, images, clone):
    extractor = FeatureExtractor(small.eval())
    twin = clone(extractor)
    with torch.no_grad():
        twin.model.conv1.weight.zero_()
        torch.testing.assert_close(twin(images).feature_maps["stem"], torch.zeros(4, 16, 8, 8))
        assert extractor(images).feature_maps["stem"].any()
    del extractor
    gc.collect()
    assert list(twin(images).feature_maps) == ["stem", "layer1", "layer2", "layer3"]


def test_a_copied_networks_left_over_hooks_keep_nothing(small, images):
    extractor = FeatureExtractor(small)
    twin = copy.deepcopy(extractor.model)
    twin(images)
    (hook,) = twin.layer1._forward_hooks.values()
    assert hook.args[1].tensors is None


def test_compiles_without_a_graph_break(small, images):
    extractor = FeatureExtractor(small.eval())
    compiled = torch.compile(extractor, backend="aot_eager", fullgraph=True)
    want, got = extractor(images), compiled(images)
    torch.testing.assert_close(got.logits, want.logits)
    torch.testing.assert_close(got.embedding, want.embedding)
    torch.testing.assert_close(got.feature_maps, want.feature_maps)
    assert list(compiled(images, stop_at="layer1").feature_maps) == ["stem", "layer1"]


def test_works_inside_distributed_data_parallel(small, images, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(FeatureExtractor(small))
        outputs = parallel(images)
        (outputs.logits.sum() + outputs.feature_maps["layer1"].sum()).backward()
    finally:
        torch.distributed.destroy_process_group()
    assert small.fc.weight.grad is not None


def test_errors_list_the_modules_of_the_network(user_network, small, images):
    with pytest.raises(ValueError, match=r"maps\['a'\]: the model has no module 'third'; it has body, body.first"):
        FeatureExtractor(user_network, {"a": "third"}, classifier="head")
    with pytest.raises(ValueError, match="classifier: the model has no module 'fc'; it has body"):
        FeatureExtractor(user_network, classifier="fc")
    with pytest.raises(ValueError, match="classifier: name the module that outputs the logits, one of body"):
        FeatureExtractor(user_network)
    with pytest.raises(ValueError, match="module 'unused' was not called"):
        FeatureExtractor(user_network, {"a": "unused"}, classifier="head")(images)
    with pytest.raises(ValueError, match="stop_at='layer9' is not a map of this model; use one of stem"):
        FeatureExtractor(small)(images, stop_at="layer9")


def test_the_final_map_of_any_network_by_naming_its_pooling(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    outputs = FeatureExtractor(model, classifier="3", pooling="1")(images)
    assert torch.equal(outputs.final_map, model[0](images))
    torch.testing.assert_close(outputs.final_map.mean((2, 3)), outputs.embedding)
    assert FeatureExtractor(model, classifier="3")(images).final_map is None
    with pytest.raises(ValueError, match="pooling: the model has no module 'pool'"):
        FeatureExtractor(model, classifier="3", pooling="pool")


def test_a_forward_that_stops_early_has_neither_final_map_nor_pre_activations(small, images):
    outputs = FeatureExtractor(small, pre_activations=True)(images, stop_at="layer1")
    assert outputs.final_map is outputs.pre_activations is None


def test_pre_activations_are_made_on_request_alone_and_are_not_what_a_relu_overwrites(small, images):
    assert FeatureExtractor(small.eval())(images).pre_activations is None
    outputs = FeatureExtractor(small, pre_activations=True)(images)
    assert list(outputs.pre_activations) == ["layer1", "layer2", "layer3"]
    assert all(value.min() < 0 for value in outputs.pre_activations.values())
    outputs.pre_activations["layer2"].sum().backward()
    assert small.layer2[0].conv2.weight.grad.any()
    assert small.layer3[0].conv1.weight.grad is None


def test_a_network_that_does_not_name_its_relus_has_no_pre_activations(user_network, images):
    extractor = FeatureExtractor(user_network, {"a": "body.first"}, classifier="head", pre_activations=True)
    assert extractor(images).pre_activations is None


def test_a_forward_stops_at_the_last_call_of_a_module():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.relu = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.ReLU()
            self.head = nn.Linear(6, 2)

        def forward(self, images):
            return self.head(self.relu(self.second(self.relu(self.first(images)))).mean((2, 3)))

    extractor = FeatureExtractor(Twice(), {"relu": "relu"}, "head")
    images = torch.randn(2, 3, 4, 4)
    whole = extractor(images).feature_maps["relu"]
    assert torch.equal(extractor(images, stop_at="relu").feature_maps["relu"], whole)

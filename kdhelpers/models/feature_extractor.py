"""Logits, embedding and named feature maps from one forward, for any network, by forward hooks."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn


class ReturnNodes(NamedTuple):
    """Where to listen in a network: map name -> module path, and the classifier's module path."""

    feature_maps: Mapping[str, str]
    classifier: str


class Outputs(NamedTuple):
    """logits [B, C], embedding [B, d] (the classifier's input), maps name -> [B, channels, height, width]."""

    logits: Tensor | None
    embedding: Tensor | None
    feature_maps: dict[str, Tensor]


class _Stop(Exception):
    """Leaves the network's forward at the map that was asked for."""


class _Catch:
    """What the hooks of one `FeatureExtractor` share. `caught` is None outside its forward, so that hooks which a
    copy of the network carries along keep no tensor alive."""

    def __init__(self):
        self.caught: dict[str, Tensor] | None = None
        self.stop_at: str | None = None


_EMBEDDING = ""  # cannot be a map's name


def _keep_map(name: str, catch: _Catch, module: nn.Module, inputs: tuple, output: Tensor) -> None:
    if catch.caught is not None:
        catch.caught[name] = output
        if name == catch.stop_at:
            raise _Stop


def _keep_embedding(catch: _Catch, module: nn.Module, inputs: tuple) -> None:
    if catch.caught is not None:
        catch.caught[_EMBEDDING] = inputs[0]


class FeatureExtractor(nn.Module):
    """A network seen from outside: `forward(images) -> Outputs`; the network itself, `model`, is not changed.

    feature_maps: map name -> module path (as in `model.named_modules()`); classifier: path of the module whose input
    is the embedding. Both default to what `build_model` noted on the model; any other `nn.Module` needs at
    least `classifier`. A module that is called several times in a forward gives its last output. A map is the
    very tensor the network computed: where an in-place ReLU follows the named module, it holds the ReLU's
    output.

    Raises ValueError for a path the model does not have (the message lists those it has), for a model without
    return_nodes when no classifier is named, and for a tapped module that the forward did not call.
    """

    def __init__(self, model: nn.Module, feature_maps: Mapping[str, str] | None = None, classifier: str | None = None):
        super().__init__()
        self._handles = []  # before anything can fail, for __del__
        return_nodes = getattr(model, "return_nodes", None)
        if classifier is None and return_nodes is None:
            raise ValueError(f"classifier: name the module that puts out the logits, one of {_paths(model)}")
        self.model = model
        self.classifier = return_nodes.classifier if classifier is None else classifier
        self.feature_maps = dict(
            feature_maps if feature_maps is not None else return_nodes.feature_maps if return_nodes is not None else {}
        )
        self._catch = _Catch()
        for name, path in self.feature_maps.items():
            hook = partial(_keep_map, name, self._catch)  # a partial, unlike a closure, follows copy.deepcopy
            self._handles.append(_find(model, f"feature_maps[{name!r}]", path).register_forward_hook(hook))
        hook = partial(_keep_embedding, self._catch)
        self._handles.append(_find(model, "classifier", self.classifier).register_forward_pre_hook(hook))

    def forward(self, images: Tensor, stop_at: str | None = None) -> Outputs:
        """images [B, 3, H, W] -> Outputs. `stop_at` names a map at which the forward ends: logits and
        embedding are None, maps end there, and layers above are neither computed nor given a gradient."""
        if stop_at is not None and stop_at not in self.feature_maps:
            known = ", ".join(self.feature_maps)
            raise ValueError(f"stop_at={stop_at!r} is not a map of this model; use one of {known}")
        catch = self._catch
        caught = {}
        catch.caught, catch.stop_at = caught, stop_at
        logits = None
        try:
            logits = self.model(images)
        except _Stop:
            return Outputs(None, None, {name: caught[name] for name in self.feature_maps if name in caught})
        finally:
            catch.caught = None
        return self._collect(logits, caught)

    def _collect(self, logits: Tensor, caught: dict[str, Tensor]) -> Outputs:
        missing = [name for name in (_EMBEDDING, *self.feature_maps) if name not in caught]
        if missing:
            path = self.feature_maps.get(missing[0], self.classifier)
            raise ValueError(f"module {path!r} was not called in the model's forward; tap one that is")
        return Outputs(logits, caught[_EMBEDDING].flatten(1), {name: caught[name] for name in self.feature_maps})

    def __del__(self):
        for handle in self.__dict__.get("_handles", ()):
            handle.remove()


def _find(model: nn.Module, what: str, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ValueError(f"{what}: the model has no module {path!r}; it has {_paths(model)}") from None


def _paths(model: nn.Module) -> str:
    return ", ".join(path for path, _ in model.named_modules() if path)

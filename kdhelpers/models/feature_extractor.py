"""Logits, embedding and named feature maps from one forward of any network, by forward hooks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn


class ReturnNodes(NamedTuple):
    """The modules whose tensors to return: map name -> module path, and the path of the classifier."""

    feature_maps: Mapping[str, str]
    classifier: str


class Outputs(NamedTuple):
    """logits [B, C], embedding [B, d] (the classifier's input), feature_maps name -> [B, channels, height, width]."""

    logits: Tensor | None
    embedding: Tensor | None
    feature_maps: dict[str, Tensor]


class _Stop(Exception):
    """Ends the network's forward at the map `stop_at`."""


@dataclass
class _Capture:
    """The state shared by the hooks of a `FeatureExtractor`. `tensors` is None outside its forward, so that the hooks
    in a copy of the network keep no tensor alive."""

    tensors: dict[str, Tensor] | None = None
    stop_at: str | None = None


_EMBEDDING = ""  # cannot be a map's name


def _keep_map(name: str, capture: _Capture, module: nn.Module, inputs: tuple, output: Tensor) -> None:
    if capture.tensors is not None:
        capture.tensors[name] = output
        if name == capture.stop_at:
            raise _Stop


def _keep_embedding(capture: _Capture, module: nn.Module, inputs: tuple) -> None:
    if capture.tensors is not None:
        capture.tensors[_EMBEDDING] = inputs[0]


class FeatureExtractor(nn.Module):
    """Returns the intermediate tensors of a network: `forward(images) -> Outputs`. The network, `model`, is unchanged.

    feature_maps: map name -> module path (as in `model.named_modules()`); classifier: path of the module whose input
    is the embedding. Both default to the `return_nodes` that `build_model` sets; any other `nn.Module` needs
    `classifier`. A module that is called several times in a forward gives its last output. A map is not a copy: if an
    in-place ReLU follows the named module, the map holds the ReLU's output.

    Raises ValueError for a path that the model does not have (the message lists its paths), for a model without
    return_nodes if `classifier` is missing, and for a named module that the forward does not call.
    """

    def __init__(self, model: nn.Module, feature_maps: Mapping[str, str] | None = None, classifier: str | None = None):
        super().__init__()
        self._handles = []  # before anything can fail, for __del__
        defaults = getattr(model, "return_nodes", None) or ReturnNodes({}, "")
        self.model = model
        self.classifier = defaults.classifier if classifier is None else classifier
        self.feature_maps = dict(defaults.feature_maps if feature_maps is None else feature_maps)
        if classifier is None and not self.classifier:
            raise ValueError(f"classifier: name the module that outputs the logits, one of {_paths(model)}")
        self._capture = _Capture()
        for name, path in self.feature_maps.items():
            hook = partial(_keep_map, name, self._capture)  # a partial, unlike a closure, follows copy.deepcopy
            self._handles.append(_find(model, f"feature_maps[{name!r}]", path).register_forward_hook(hook))
        hook = partial(_keep_embedding, self._capture)
        self._handles.append(_find(model, "classifier", self.classifier).register_forward_pre_hook(hook))

    def forward(self, images: Tensor, stop_at: str | None = None) -> Outputs:
        """images [B, 3, H, W] -> Outputs.

        stop_at: name of the map at which the forward ends. Logits and embedding are then None, later maps are missing,
        and later layers are neither computed nor given a gradient.
        """
        if stop_at is not None and stop_at not in self.feature_maps:
            names = ", ".join(self.feature_maps)
            raise ValueError(f"stop_at={stop_at!r} is not a map of this model; use one of {names}")
        tensors = {}
        self._capture.tensors, self._capture.stop_at = tensors, stop_at
        try:
            logits = self.model(images)
        except _Stop:
            return Outputs(None, None, {name: tensors[name] for name in self.feature_maps if name in tensors})
        finally:
            self._capture.tensors = None
        missing = [name for name in (_EMBEDDING, *self.feature_maps) if name not in tensors]
        if missing:
            path = self.feature_maps.get(missing[0], self.classifier)
            raise ValueError(f"module {path!r} was not called in the model's forward; name a module that is")
        return Outputs(logits, tensors[_EMBEDDING].flatten(1), {name: tensors[name] for name in self.feature_maps})

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

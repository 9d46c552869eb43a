"""Logits, embedding and named feature maps from one forward of any network, by forward hooks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn


class ReturnNodes(NamedTuple):
    """The modules whose tensors to return, by path; `Architecture` describes the fields.

    layouts: name of a feature map -> what makes [B, c, h, w] of its module's output, for the tokens of a transformer.
    """

    feature_maps: Mapping[str, str]
    classifier: str
    pooling: str = ""
    pre_activations: Mapping[str, str] | None = None
    layouts: Mapping[str, Callable[[Tensor], Tensor]] = {}


class Outputs(NamedTuple):
    """logits [B, C], embedding [B, d] (the classifier's input), feature_maps name -> [B, channels, height, width].

    final_map [B, channels, height, width]: the input of the global pooling; None if the network does not name it.
    pre_activations: each map except the first, before its last ReLU; a map that does not end with one, as it is. A
    WRN's map is a sum: it passes the next block's BatchNorm, which a ReLU follows. None if they are not asked for.
    """

    logits: Tensor | None
    embedding: Tensor | None
    feature_maps: dict[str, Tensor]
    final_map: Tensor | None = None
    pre_activations: dict[str, Tensor] | None = None


class _Stop(Exception):
    """Ends the network's forward at the map `stop_at`."""


_Key = tuple[str, str]  # what is kept: one of the four kinds below, and a name that error messages give
_MAP, _BEFORE_RELU, _FINAL_MAP, _EMBEDDING = "map", "before ReLU", "final map", "embedding"


@dataclass
class _Capture:
    """The state shared by the hooks of a `FeatureExtractor`. `tensors` is None outside its forward, so that the hooks
    in a copy of the network keep no tensor alive.

    calls: how often each map's module was called in this forward; times: in the last whole forward.
    """

    tensors: dict[_Key, Tensor] | None = None
    stop_at: str | None = None
    calls: dict[_Key, int] = field(default_factory=dict)
    times: dict[_Key, int] = field(default_factory=dict)


def _keep_map(key: _Key, capture: _Capture, module: nn.Module, inputs: tuple, output: Tensor) -> None:
    if capture.tensors is not None:
        capture.tensors[key] = output
        capture.calls[key] = capture.calls.get(key, 0) + 1
        if key[1] == capture.stop_at and capture.calls[key] >= capture.times.get(key, 1):
            raise _Stop


def _keep_input(key: _Key, capture: _Capture, module: nn.Module, inputs: tuple) -> None:
    if capture.tensors is not None:
        capture.tensors[key] = inputs[0].clone() if key[0] == _BEFORE_RELU else inputs[0]  # a ReLU may work in place


class FeatureExtractor(nn.Module):
    """Returns the intermediate tensors of a network: `forward(images) -> Outputs`. The network, `model`, is unchanged.

    feature_maps: map name -> module path (as in `model.named_modules()`); classifier: path of the module whose input
    is the embedding; pooling: path of the module whose input is the final map. They default to the `return_nodes` that
    `build_model` sets; any other `nn.Module` needs `classifier`. pre_activations: make these as well, as copies. A
    module that is called several times in a forward gives its last output or input. A map is not a copy: if an
    in-place ReLU follows the named module, the map holds the ReLU's output.

    Raises ValueError for a path that the model does not have (the message lists its paths), for a model without
    return_nodes if `classifier` is missing, and for a named module that the forward does not call.
    """

    def __init__(
        self,
        model: nn.Module,
        feature_maps: Mapping[str, str] | None = None,
        classifier: str | None = None,
        pooling: str | None = None,
        pre_activations: bool = False,
    ):
        super().__init__()
        self._handles = []  # before anything can fail, for __del__
        defaults = getattr(model, "return_nodes", None) or ReturnNodes({}, "")
        self.model = model
        self.classifier = defaults.classifier if classifier is None else classifier
        self.feature_maps = dict(defaults.feature_maps if feature_maps is None else feature_maps)
        if classifier is None and not self.classifier:
            raise ValueError(f"classifier: name the module that outputs the logits, one of {_paths(model)}")
        pooling = defaults.pooling if pooling is None else pooling
        self.pre_activations = defaults.pre_activations if pre_activations else None
        self.layouts = {name: layout for name, layout in defaults.layouts.items() if name in self.feature_maps}
        self._capture = _Capture()
        self._paths = {(_MAP, name): path for name, path in self.feature_maps.items()}
        self._paths |= {(_BEFORE_RELU, name): path for name, path in (self.pre_activations or {}).items()}
        self._paths |= {(_FINAL_MAP, "pooling"): pooling} if pooling else {}
        self._paths[_EMBEDDING, "classifier"] = self.classifier
        for key, path in self._paths.items():
            module = _find(model, f"feature_maps[{key[1]!r}]" if key[0] == _MAP else key[1], path)
            register = module.register_forward_hook if key[0] == _MAP else module.register_forward_pre_hook
            hook = partial(_keep_map if key[0] == _MAP else _keep_input, key, self._capture)
            self._handles.append(register(hook))  # a partial, unlike a closure, follows copy.deepcopy

    def forward(self, images: Tensor, stop_at: str | None = None) -> Outputs:
        """images [B, 3, H, W] -> Outputs.

        stop_at: name of the map at which the forward ends. Logits and embedding are then None, later maps are missing,
        and later layers are neither computed nor given a gradient. A map whose module is called several times needs a
        whole forward before.
        """
        if stop_at is not None and stop_at not in self.feature_maps:
            names = ", ".join(self.feature_maps)
            raise ValueError(f"stop_at={stop_at!r} is not a map of this model; use one of {names}")
        tensors = {}
        self._capture.tensors, self._capture.stop_at, self._capture.calls = tensors, stop_at, {}
        try:
            logits = self.model(images)
        except _Stop:
            if stop_at is None:  # the stop of another extractor, which holds this one
                raise
            return Outputs(None, None, self._maps(tensors))
        finally:
            self._capture.tensors = None
        if not isinstance(logits, Tensor):
            mode = "training" if self.model.training else "eval"
            raise ValueError(f"model: returns a {type(logits).__name__} in {mode} mode; return the logits alone")
        if missing := [path for key, path in self._paths.items() if key not in tensors]:
            raise ValueError(f"module {missing[0]!r} was not called in the model's forward; name a module that is")
        self._capture.times = self._capture.calls
        embedding, maps = tensors[_EMBEDDING, "classifier"].flatten(1), self._maps(tensors)
        final_map = tensors.get((_FINAL_MAP, "pooling"))
        if self.pre_activations is None:
            return Outputs(logits, embedding, maps, final_map)
        before = {name: tensors.get((_BEFORE_RELU, name), maps[name]) for name in list(maps)[1:]}
        return Outputs(logits, embedding, maps, final_map, before)

    def _maps(self, tensors: dict[_Key, Tensor]) -> dict[str, Tensor]:
        maps = {name: tensors[_MAP, name] for name in self.feature_maps if (_MAP, name) in tensors}
        return maps | {name: layout(maps[name]) for name, layout in self.layouts.items() if name in maps}

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

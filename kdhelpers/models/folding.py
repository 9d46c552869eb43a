"""A frozen network made cheaper: each BatchNorm folded into the convolution before it."""

import copy
import inspect
from itertools import chain

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """A copy in eval whose BatchNorms are folded into the convolution directly before them.

    W' = W g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta. The BatchNorm becomes an Identity, so
    module paths and return_nodes stay as they were. Left alone: a BatchNorm whose input is anything but the output of
    one convolution that nothing else uses; a convolution that is called twice, shares its weight or is itself
    tapped; all of a network that torch.fx cannot trace (control flow that depends on the data).
    Fold first, then observe.
    """
    folded = copy.deepcopy(model).eval()
    try:
        graph = _trace(folded)
    except Exception:  # tracing runs the user's forward on stand-ins for tensors: anything may come of it
        return folded
    for convolution, batchnorm in _pairs(folded, graph):
        fused = fuse_conv_bn_eval(folded.get_submodule(convolution), folded.get_submodule(batchnorm))
        folded.set_submodule(convolution, fused)
        folded.set_submodule(batchnorm, nn.Identity())
    return folded


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        # what holds no convolution is not looked into: it may branch on shapes, which tracing cannot follow
        parts = module.modules()
        return isinstance(module, nn.Conv2d) or not any(isinstance(part, nn.Conv2d) for part in parts)


def _trace(model: nn.Module) -> fx.Graph:
    parameters = inspect.signature(model.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return _Tracer().trace(model, concrete_args=defaults or None)


def _pairs(model: nn.Module, graph: fx.Graph) -> list[tuple[str, str]]:
    """Paths (convolution, batchnorm) of the foldable pairs."""
    called = [model.get_submodule(node.target) for node in graph.nodes if node.op == "call_module"]
    read = {node.target.rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    tapped = set(model.return_nodes.feature_maps.values()) if hasattr(model, "return_nodes") else set()
    pairs = []
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        convolution, batchnorm = model.get_submodule(source.target), model.get_submodule(node.target)
        # exact types: a subclass may standardise its weight or put an activation behind the norm
        if type(convolution) is not nn.Conv2d or type(batchnorm) is not nn.BatchNorm2d:
            continue
        pair = (convolution, batchnorm)
        alone = all(called.count(part) == 1 and _owns_tensors(model, part) for part in pair)
        if alone and batchnorm.running_mean is not None and source.target not in read | tapped:
            pairs.append((source.target, node.target))
    return pairs


def _owns_tensors(model: nn.Module, part: nn.Module) -> bool:
    """Whether the part's tensors are plain (no parametrisation makes them) and registered under one path."""
    own = {id(tensor) for tensor in _tensors(part)}
    plain = part.weight is None or id(part.weight) in own
    return plain and sum(id(tensor) in own for tensor in _tensors(model)) == len(own)


def _tensors(module: nn.Module) -> list[Tensor]:
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    return [tensor for _, tensor in chain(parameters, buffers)]

"""A frozen network made faster: each BatchNorm is folded into the convolution before it."""

import copy
import inspect
from itertools import chain

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """A copy in eval mode, with each BatchNorm folded into the convolution directly before it.

    W' = W g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta. The BatchNorm becomes an Identity, so that module
    paths and return_nodes stay valid. Not folded: a BatchNorm whose input is not the output of a single convolution, or
    is used elsewhere too; a convolution that is called twice, shares its weight or is a return node; a network that
    torch.fx cannot trace (control flow that depends on the data). Fold before you build a `FeatureExtractor`.
    """
    folded = copy.deepcopy(model).eval()
    try:
        graph = _trace(folded)
    except Exception:  # tracing runs the user's forward on proxies of tensors and may raise any error
        return folded
    for convolution, batchnorm in _pairs(folded, graph):
        fused = fuse_conv_bn_eval(folded.get_submodule(convolution), folded.get_submodule(batchnorm))
        folded.set_submodule(convolution, fused)
        folded.set_submodule(batchnorm, nn.Identity())
    return folded


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        # a module without convolutions is not traced: it may branch on shapes, which tracing cannot follow
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
    returned = set(model.return_nodes.feature_maps.values()) if hasattr(model, "return_nodes") else set()
    pairs = []
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        convolution, batchnorm = model.get_submodule(source.target), model.get_submodule(node.target)
        # exact types: a subclass may standardise its weight or apply an activation after the norm
        if type(convolution) is not nn.Conv2d or type(batchnorm) is not nn.BatchNorm2d:
            continue
        pair = (convolution, batchnorm)
        unshared = all(called.count(part) == 1 and _owns_tensors(model, part) for part in pair)
        if unshared and batchnorm.running_mean is not None and source.target not in read | returned:
            pairs.append((source.target, node.target))
    return pairs


def _owns_tensors(model: nn.Module, part: nn.Module) -> bool:
    """Whether the part's tensors are plain (without a parametrisation) and registered under one path."""
    own = {id(tensor) for tensor in _tensors(part)}
    plain = part.weight is None or id(part.weight) in own
    return plain and sum(id(tensor) in own for tensor in _tensors(model)) == len(own)


def _tensors(module: nn.Module) -> list[Tensor]:
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    return [tensor for _, tensor in chain(parameters, buffers)]

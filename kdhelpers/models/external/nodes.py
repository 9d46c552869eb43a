"""The nodes of any network, found by a forward of two images: feature maps, embedding, final map, pre-activations.

Feature maps: the last output at each resolution, before it the stem; of a network with one resolution, such as a ViT,
the patch embedding and each block. A map inside a block, or on the way to a smaller one, does not count.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import nn

from kdhelpers.models.external.trace import Call, Trace
from kdhelpers.models.feature_extractor import ReturnNodes
from kdhelpers.nearest import guess

PASSING = ("Pool", "Dropout", "DropPath", "Identity", "Flatten", "Permute")  # in names of modules that learn nothing
GLOBAL = ("Adaptive", "Global")
ALL = 0.9  # a module with this share of the parameters is the network, not a block


def return_nodes(traced: Trace, feature_maps: Sequence[str] = (), embedding: str = "") -> ReturnNodes:
    """The chosen nodes; the others are found. feature_maps: paths of modules; embedding: the module that takes it.

    Raises ValueError for a path that outputs no map, and if no nn.Linear outputs the logits.
    """
    calls = traced.calls
    maps = [_chosen(path, calls) for path in feature_maps] or found_maps(calls)
    maps = sorted(maps, key=list(calls.values()).index)
    classifier = _classifier(traced, embedding)
    return ReturnNodes(
        {call.path: call.path for call in maps},
        classifier.path,
        _pooling(calls, classifier),
        _pre_activations(calls, maps),
        {call.path: call.layout for call in maps if call.layout},
    )


def candidates(calls: dict[str, Call]) -> list[Call]:
    """The outputs that are maps of the network's main path, in order; blocks are not opened."""
    total = sum(call.parameters for call in calls.values() if "." not in call.path)
    last = next(
        (place for place, call in enumerate(calls.values()) if _is_global_pooling(call, calls, total)), len(calls)
    )
    on_path = [call for call in list(calls.values())[:last] if call.side and _on_main_path(call, calls, total)]
    return [call for call in on_path if not _only_holds(call, calls)]


def choices(calls: dict[str, Call]) -> list[Call]:
    """The maps to choose from, without the parts of blocks, and the linear layers that take a vector."""
    on_path = [call for call in candidates(calls) if not _named(call, PASSING) and not _in_a_block(call, calls)]
    linear = [call for call in calls.values() if isinstance(call.module, nn.Linear) and call.output.ndim == 2]
    return [*on_path, *linear]


def _in_a_block(call: Call, calls: dict[str, Call]) -> bool:
    parents = [parent for parent in _parents(call.path, calls) if parent.side and parent.entered]
    return any(type(parent.module) is not nn.Sequential for parent in parents)


def found_maps(calls: dict[str, Call]) -> list[Call]:
    on_path = candidates(calls)
    groups = [list(group) for _, group in groupby(_descending(on_path), key=lambda call: call.side)]
    groups = [group for group in groups if group[0].side > 1 or any(call.parameters for call in group)]
    maps = [_outermost(_last(group), calls) for group in groups]
    if len(maps) == 1:
        maps = _blocks(maps[0], on_path) or maps
    stem = maps and _before(maps[0], on_path, calls)
    return [stem, *maps] if stem else maps


def _descending(on_path: list[Call]) -> Iterator[Call]:
    """Without maps larger than an earlier one: those of a decoder."""
    smallest = float("inf")
    for call in on_path:
        if call.side <= smallest:
            smallest = call.side
            yield call


def _last(group: list[Call]) -> Call:
    return next((call for call in reversed(group) if not _named(call, PASSING)), group[-1])


def _named(call: Call, words: Sequence[str]) -> bool:
    return any(word in call.kind for word in words)


def _parents(path: str, calls: dict[str, Call]) -> list[Call]:
    names = path.split(".")[:-1]
    paths = [".".join(names[: place + 1]) for place in range(len(names))]
    return [calls[path] for path in paths if path in calls]


def _on_main_path(call: Call, calls: dict[str, Call], total: int) -> bool:
    """Whether no block around it hides the map: a block that halves the side, or keeps it, has its output alone."""
    for parent in _parents(call.path, calls):
        if not (parent.side and parent.entered):
            continue
        is_block = parent.entered <= 2 * parent.side and parent.parameters < ALL * total
        if not parent.side <= call.side <= (parent.side if is_block else parent.entered):
            return False
    return True


def _is_global_pooling(call: Call, calls: dict[str, Call], total: int) -> bool:
    """A squeeze-and-excitation block pools, too, within a block that takes and outputs a map."""
    pools = _named(call, GLOBAL) and "Pool" in call.kind and call.entered and (call.side == 1 or call.output.ndim == 2)
    blocks = [parent for parent in _parents(call.path, calls) if parent.side and parent.parameters < ALL * total]
    return bool(pools) and not blocks


def _only_holds(call: Call, calls: dict[str, Call]) -> bool:
    """Whether it holds several stages, and returns what the last of them does."""
    parts = [part for part in calls.values() if part.path.startswith(f"{call.path}.") and part.side]
    shrinks = call.entered > 2 * call.side and len({part.side for part in parts}) > 1
    return shrinks and any(part.output is call.output for part in parts)


def _outermost(call: Call, calls: dict[str, Call]) -> Call:
    """The outermost block that returns the same tensor: layer4 for its last part, layer4.1."""
    same = [p for p in _parents(call.path, calls) if p.output is call.output and p.entered <= 2 * p.side]
    return same[0] if same else call


def _blocks(last: Call, on_path: list[Call]) -> list[Call]:
    """The longest series of modules of one kind with parts of their own: the blocks of a ViT."""
    series: dict[tuple[str, str], list[Call]] = {}
    for call in on_path:
        if any(True for _ in call.module.children()) and call.side == last.side and not _named(call, PASSING):
            series.setdefault((call.path.rpartition(".")[0], call.kind), []).append(call)
    longest = max(series.values(), key=len, default=[])
    return longest if len(longest) > 1 else []


def _before(first: Call, on_path: list[Call], calls: dict[str, Call]) -> Call | None:
    """The stem: the last map before the parts of the first block begin; None if the first map is not a block's."""
    if sum(isinstance(part, nn.Conv2d | nn.Linear) for part in first.module.modules()) < 2:
        return None
    inner = (place for place, path in enumerate(calls) if path.startswith(f"{first.path}."))
    begin = next(inner, list(calls).index(first.path))
    places = {path: place for place, path in enumerate(calls)}
    before = [call for call in on_path if places[call.path] < begin and not _named(call, PASSING)]
    same = [call for call in before if call.side == first.side]
    return _outermost(same[-1], calls) if same else None


def _chosen(path: str, calls: dict[str, Call]) -> Call:
    if path not in calls or not calls[path].side:
        names = [call.path for call in calls.values() if call.side]
        raise ValueError(f"feature_maps: {path!r} outputs no map [B, c, h, w]; {guess(path, names, 3)}{_listing()}")
    return calls[path]


def _listing() -> str:
    return "`python -m kdhelpers network NAME` lists the nodes"


def _classifier(traced: Trace, embedding: str) -> Call:
    calls, logits = traced.calls, traced.logits
    if embedding:
        call = calls.get(embedding)
        if call is None or call.inputs is None or call.output.flatten(1).shape != logits.shape:
            fault = f"embedding: {embedding!r} does not output one logit per class"
            raise ValueError(f"{fault}; {guess(embedding, calls, 3)}{_listing()}")
        return call
    for call in reversed(calls.values()):
        flat = call.output.flatten(1)  # a convolution of 1x1 pixel outputs [B, C, 1, 1]
        if isinstance(call.module, nn.Linear | nn.Conv2d) and flat.shape == logits.shape and torch.equal(flat, logits):
            return call
    linear = [call for call in calls.values() if isinstance(call.module, nn.Linear)]
    last = f"the last one, {linear[-1].path}, outputs {tuple(linear[-1].shape)}" if linear else "it has none"
    raise ValueError(
        f"embedding: no nn.Linear outputs the logits ({last}); end the network with one, or name the module that takes "
        f'the embedding: model_options={{"embedding": "..."}}; {_listing()}'
    )


def _pooling(calls: dict[str, Call], classifier: Call) -> str:
    """The global average pooling whose output is the embedding, as CAT-KD, SDD and SimKD need it; "" without one."""
    embedding = classifier.inputs
    for call in reversed(calls.values()):
        is_map = call.inputs is not None and call.inputs.ndim == 4 and "Pool" in call.kind
        if is_map and call.inputs.shape[:2] == embedding.shape:
            mean = call.inputs.mean((2, 3))
            return call.path if torch.allclose(mean, embedding, rtol=1e-3, atol=1e-5) else ""
    return ""


def _pre_activations(calls: dict[str, Call], maps: list[Call]) -> dict[str, str] | None:
    """Map -> the ReLU that outputs it. None if a map is the output of a ReLU that is not a module."""
    relus = {id(call.output): call.path for call in calls.values() if re.fullmatch("ReLU6?", call.kind)}
    found = {call.path: relus[id(call.output)] for call in maps[1:] if id(call.output) in relus}
    unknown = [call for call in maps[1:] if call.path not in found and call.output.min() >= 0]
    return None if unknown else found

"""Weight files made elsewhere: the state_dict inside a checkpoint."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdhelpers import artifacts
from kdhelpers.messages import inform
from kdhelpers.weights.not_weights import not_weights
from kdhelpers.weights.safe_pickle import Placeholder, SafeCheckpoint, SavedTensor, Unreadable

WRAPPERS = ("state_dict", "model", "net", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
SCORES = ("epoch", "accuracy", "best_acc")  # stored by a training loop next to the weights
MAX_DEPTH, MAX_NAMES = 3, 6  # of nested wrappers; in a message


def load_state(path: Path) -> dict[str, Tensor]:
    """The state_dict in a weight file: the whole file, or its content under one of `WRAPPERS`, without `PREFIXES`.

    stderr reports what was taken and what was left, unless the file is a plain state_dict. Pickled objects are ignored:
    no class or function of the pickle is imported or called. Raises FileNotFoundError; ValueError for a damaged file
    and for one without a state_dict.
    """
    return load_checkpoint(path)[0]


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """`load_state`, and the unverified numbers that the file has under `SCORES`."""
    content, file = _content(path)
    state, wrappers = _unwrap(content, path)
    state, prefixes = _strip_prefixes(state)
    ignored = [key for key in content if key not in wrappers] if wrappers else []
    _report(path, len(state), wrappers, prefixes, ignored, file.names if file else [])
    return _tensors(state, file, path), _scores(content, file) if wrappers else {}


def _content(path: Path) -> tuple[Any, SafeCheckpoint | None]:
    try:
        return artifacts.load_tensors(path), None
    except ValueError as refusal:
        try:
            file = SafeCheckpoint(path)
        except Unreadable:
            if other := not_weights(path):
                raise ValueError(f"{path}: {other}") from None
            raise refusal from None
        return file.tree, file


def _unwrap(content: Any, path: Path) -> tuple[dict, list[str]]:
    wrappers = []
    while not _is_state(content):
        inner = [key for key in WRAPPERS if isinstance(content, dict) and isinstance(content.get(key), dict)]
        inner = [key for key in inner if _is_state(content[key])] or inner
        if len(inner) > 1:
            raise ValueError(f"{path}: several networks, under {', '.join(inner)}; save one of them alone")
        if not inner or len(wrappers) == MAX_DEPTH:
            raise ValueError(
                f"{path}: not a state_dict of tensors, and has none under {', '.join(WRAPPERS)}; it holds "
                f"{_describe(content)}; save the network's state_dict() alone, where its code is at hand"
            )
        wrappers += inner
        content = content[inner[0]]
    return content, wrappers


def _is_state(content: Any) -> bool:
    items = content.items() if isinstance(content, dict) else ()
    return bool(items) and all(isinstance(key, str) and isinstance(value, Tensor | SavedTensor) for key, value in items)


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return _listed([f"{key} ({v.path})" if isinstance(v, Placeholder) else key for key, v in content.items()])
    return content.path if isinstance(content, Placeholder) else type(content).__name__


def _listed(names: list) -> str:
    words = [name if isinstance(name, str) else f"a key of type {type(name).__name__}" for name in names[:MAX_NAMES]]
    text = ", ".join(ascii(word[:80])[1:-1] for word in words)  # no escape codes of a file on a terminal
    return text + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")


def _strip_prefixes(state: dict) -> tuple[dict, list[str]]:
    removed = []
    while prefix := next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        removed.append(prefix)
    return state, removed


def _report(path: Path, count: int, wrappers: list, prefixes: list, ignored: list, names: list) -> None:
    text = f"{path}: {count} tensors taken"
    text += f" from {'.'.join(wrappers)}" if wrappers else ""
    text += f", their prefix {''.join(prefixes)} removed" if prefixes else ""
    text += f"; left: {_listed(ignored)}" if ignored else ""
    text += f"; pickled objects that were neither imported nor called: {_listed(names)}" if names else ""
    if wrappers or prefixes or names:
        inform(text)


def _scores(content: dict, file: SafeCheckpoint | None) -> dict[str, float]:
    """Finite numbers, plain or in a tensor of one element; a numpy scalar is a pickled object and is ignored."""
    scores = {}
    for key in SCORES:
        value = content.get(key)
        try:
            value = file.tensor(value) if isinstance(value, SavedTensor) else value
        except Unreadable:
            continue
        value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        if type(value) in (int, float) and math.isfinite(value):
            scores[key] = value
    return scores


def _tensors(state: dict, file: SafeCheckpoint | None, path: Path) -> dict[str, Tensor]:
    try:
        state = {key: file.tensor(saved) for key, saved in state.items()} if file else state
    except Unreadable as error:
        raise ValueError(f"{path}: damaged ({error}); delete it and get it again") from error
    for key, value in state.items():
        fault = ""
        if value.layout != torch.strided or value.is_meta or value.is_complex():
            fault = "sparse, complex or without content"
        elif value.untyped_storage().nbytes() < value.numel() * value.itemsize:
            fault = f"{list(value.shape)} of fewer stored numbers"
        if fault:
            raise ValueError(f"{path}: {key} is {fault}; a weight is a dense real tensor; get the file again")
    return state

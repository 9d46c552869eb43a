"""Weight files made elsewhere: the state_dict out of whatever a checkpoint has around it."""

import contextlib
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdhelpers import artifacts
from kdhelpers.weights.safe_pickle import Placeholder, SafeCheckpoint, SavedTensor, Unreadable

WRAPPERS = ("state_dict", "model", "net", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
SCORES = ("epoch", "accuracy", "best_acc")  # what a training loop notes beside its weights
DEPTH, SHOWN = 3, 6  # wrappers in each other; names in a message


def load_state(path: Path) -> dict[str, Tensor]:
    """The state_dict in a weight file: the file itself, or what it has under one of `WRAPPERS`, without `PREFIXES`.

    Where it is not the file itself, what was taken is said on stderr. Pickled objects beside it are passed over, and
    nothing that they name is imported or run. Raises FileNotFoundError; ValueError for a damaged file and for one
    without a state_dict.
    """
    return load_checkpoint(path)[0]


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """`load_state`, and the numbers under `SCORES` beside the weights: the file's own word, checked by nobody."""
    found, file = _content(path)
    state, wrappers = _unwrapped(found, path)
    state, prefixes = _without_prefixes(state)
    beside = [key for key in found if key not in wrappers] if wrappers else []
    _tell(path, len(state), wrappers, prefixes, beside, file.names if file else [])
    return _built(state, file, path), _scores(found, file) if wrappers else {}


def _scores(found: dict, file: SafeCheckpoint | None) -> dict[str, float]:
    """Plain numbers and tensors of one finite number; a numpy scalar is an object to be made, so it stays unread."""
    scores = {}
    for key in SCORES:
        value = found.get(key)
        with contextlib.suppress(Unreadable):
            value = file.tensor(value) if isinstance(value, SavedTensor) else value
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if type(value) in (int, float) and math.isfinite(value):
            scores[key] = value
    return scores


def _content(path: Path) -> tuple[Any, SafeCheckpoint | None]:
    try:
        return artifacts.load_tensors(path), None
    except ValueError as refusal:
        try:
            file = SafeCheckpoint(path)
        except Unreadable:
            raise refusal from None
        return file.tree, file


def _unwrapped(found: Any, path: Path) -> tuple[dict, list[str]]:
    wrappers, content = [], found
    while not _is_state(content):
        inner = [key for key in WRAPPERS if isinstance(content, dict) and isinstance(content.get(key), dict)]
        inner = [key for key in inner if _is_state(content[key])] or inner
        if len(inner) > 1:
            raise ValueError(f"{path}: several networks, under {', '.join(inner)}; save the one you mean alone")
        if not inner or len(wrappers) == DEPTH:
            raise ValueError(
                f"{path}: not a state_dict of tensors, and none is under {', '.join(WRAPPERS)}; it holds "
                f"{_described(content)}; save the network's state_dict() alone, where its code is at hand"
            )
        wrappers.append(inner[0])
        content = content[inner[0]]
    return content, wrappers


def _is_state(found: Any) -> bool:
    values = found.values() if isinstance(found, dict) else ()
    tensors = all(isinstance(value, Tensor | SavedTensor) for value in values)
    return bool(values) and tensors and all(isinstance(key, str) for key in found)


def _described(found: Any) -> str:
    if isinstance(found, dict):
        return _listed([f"{key} ({v.path})" if isinstance(v, Placeholder) else key for key, v in found.items()])
    return found.path if isinstance(found, Placeholder) else type(found).__name__


def _listed(names: list) -> str:
    words = [name if isinstance(name, str) else f"a key of type {type(name).__name__}" for name in names[:SHOWN]]
    shown = [ascii(word[:80])[1:-1] for word in words]  # a file's words on a terminal: no escape codes
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _without_prefixes(state: dict) -> tuple[dict, list[str]]:
    removed = []
    while prefix := next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        removed.append(prefix)
    return state, removed


def _tell(path: Path, count: int, wrappers: list, prefixes: list, beside: list, names: list) -> None:
    told = f"{count} tensors taken"
    told += f" from {'.'.join(wrappers)}" if wrappers else ""
    told += f", their prefix {''.join(prefixes)} removed" if prefixes else ""
    told += f"; left: {_listed(beside)}" if beside else ""
    told += f"; pickled objects that were neither made nor run: {_listed(names)}" if names else ""
    if wrappers or prefixes or names:
        print(f"{path}: {told}", file=sys.stderr)


def _built(state: dict, file: SafeCheckpoint | None, path: Path) -> dict[str, Tensor]:
    try:
        built = {key: file.tensor(saved) for key, saved in state.items()} if file else state
    except Unreadable as error:
        raise ValueError(f"{path}: damaged ({error}); delete it and get it again") from error
    for key, value in built.items():
        if fault := _fault(value):
            raise ValueError(f"{path}: {key} is {fault}, which is no network's weight; get the file again")
    return built


def _fault(value: Tensor) -> str:
    if value.layout != torch.strided or value.is_meta or value.is_complex():
        return "sparse, complex or without content"
    small = value.untyped_storage().nbytes() < value.numel() * value.itemsize
    return f"{list(value.shape)} of fewer stored numbers" if small else ""

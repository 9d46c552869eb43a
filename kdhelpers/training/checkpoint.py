"""The checkpoint of a training: a copy of its state after each epoch, which a thread writes to the disk."""

import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from kdhelpers import artifacts

CHECKPOINT_SECONDS = 20
PARTS = {"epochs_done": int, "history": list, "precision": str}
PARTS |= dict.fromkeys(("network", "method", "optimizer", "scaler"), dict)
NUMBERS = (int, float, type(None))  # what a row of the history holds


class Checkpoint:
    """`keep` follows each epoch. At the end: `save_last` if the training failed, `close`, `delete` if it finished.

    A kill or a power cut loses the epochs since the last write. Any other end loses none.

    `<id>.pt` holds the state, `<id>.best-<epoch>.pth` the selected weights. These are written if they changed, before
    the state that names them; the earlier ones are deleted after it. So each state on the disk has its weights.
    """

    def __init__(self, identity: str):
        self.path = artifacts.checkpoint_path(identity)
        self._thread, self._writing = ThreadPoolExecutor(1), None
        self._state: dict | None = None
        self._write_began, self._stored_epoch, self._stored_best = -math.inf, 0, 0

    def load(self, device: str) -> dict:
        """The stored state, of this version or an earlier one. Raises ValueError, with the remedy, if it is damaged."""
        state = artifacts.load_tensors(self.path, device)
        if not _is_state(state):
            raise ValueError(f"{self.path}: is not a checkpoint of a run; delete it and run again")
        best = state["best"]
        if best and "weights" not in best:
            best["weights"] = self._load_best(best_path(self.path, best["epoch"]), device)
            self._stored_best = best["epoch"]
        self._write_began, self._stored_epoch = time.monotonic(), state["epochs_done"]
        return state

    def _load_best(self, path: Path, device: str) -> dict[str, Tensor]:
        try:
            return artifacts.load_tensors(path, device)
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(
                f"{path}: the selected weights of {self.path.name} are missing or damaged; restore the file, or delete "
                "both files to start the run again"
            ) from error

    def keep(self, state: dict, write: bool = False) -> None:
        """Copy the state of a finished epoch, so that the training may go on.

        The copy is written if it is the first, if the last write began 20 seconds ago and has ended, or if `write`.
        Raises OSError if the last write failed.
        """
        selected = {"best": state["best"]}  # its weights are a copy already
        self._state = _each_tensor(state | {"best": None}, Tensor.clone) | selected
        if self._writing and (write or self._writing.done()):
            self._wait()
        if not self._writing and (write or time.monotonic() - self._write_began >= CHECKPOINT_SECONDS):
            self._writing = self._begin_write(self._state)

    def _begin_write(self, state: dict) -> Future:
        """The copy leaves an accelerator here, so the thread does not touch it."""
        self._write_began = time.monotonic()
        best, weights = state["best"], None
        if best and best["weights"] is not None:
            best = {key: value for key, value in best.items() if key != "weights"}
            if best["epoch"] != self._stored_best:
                weights = {name: value.cpu().contiguous() for name, value in state["best"]["weights"].items()}
        return self._thread.submit(self._write, _each_tensor(state | {"best": best}, Tensor.cpu), weights)

    def _write(self, state: dict, weights: dict[str, Tensor] | None) -> None:
        selected = best_path(self.path, state["best"]["epoch"]) if state["best"] else None
        if weights:
            artifacts.save_tensors(selected, weights)
        artifacts.save_tensors(self.path, state)
        self._stored_epoch = state["epochs_done"]
        if weights:
            self._stored_best = state["best"]["epoch"]
        _delete(path for path in best_paths(self.path) if path != selected)

    def _wait(self) -> None:
        try:
            self._writing.result()
        finally:
            if self._writing.done():
                self._writing = None

    def save_last(self) -> None:
        """Write the last finished epoch, unless it is on the disk. Raises OSError."""
        if self._writing:
            with contextlib.suppress(Exception):  # it is written again
                self._wait()
        if self._state and self._state["epochs_done"] != self._stored_epoch:
            self._begin_write(self._state).result()

    def close(self) -> None:
        """End the thread, after its write."""
        self._thread.shutdown()
        self._state = self._writing = None

    def delete(self) -> None:
        delete_checkpoint(self.path)


def _is_state(state: Any) -> bool:
    """Whether it has the form of `Training.state()`; the tensors are checked when they are restored."""
    if not isinstance(state, dict) or not all(isinstance(state.get(part), kind) for part, kind in PARTS.items()):
        return False
    best, rows = state.get("best", 0), state["history"]
    numbers = all(isinstance(row, dict) and all(isinstance(value, NUMBERS) for value in row.values()) for row in rows)
    return numbers and (best is None or (isinstance(best, dict) and type(best.get("epoch")) is int))


def best_path(checkpoint: Path, epoch: int) -> Path:
    return checkpoint.with_name(f"{checkpoint.stem}.best-{epoch}.pth")


def best_paths(checkpoint: Path) -> list[Path]:
    """The selected weights that are stored for a checkpoint; after a crash between two writes there may be two."""
    return list(checkpoint.parent.glob(f"{checkpoint.stem}.best-*.pth"))


def delete_checkpoint(checkpoint: Path) -> None:
    """Delete its files, the state first, and what a kill left half-written. Only who holds the run's lock may do so."""
    _delete([checkpoint, *best_paths(checkpoint)])
    delete_half_written(checkpoint)


def delete_half_written(checkpoint: Path) -> None:
    _delete(checkpoint.parent.glob(f".{checkpoint.stem}.*.tmp"))


def rename_checkpoint(earlier: Path, present: Path) -> None:
    """The selected weights first, so that a renaming that is interrupted may be repeated."""
    for path in best_paths(earlier):
        artifacts.rename(path, path.with_name(path.name.replace(earlier.stem, present.stem, 1)))
    artifacts.rename(earlier, present)


def stored_precision(identity: str) -> str | None:
    """The precision in which the stored checkpoint was trained; None without a readable one."""
    with contextlib.suppress(OSError, ValueError):
        state = artifacts.load_tensors(artifacts.checkpoint_path(identity))
        return state.get("precision") if isinstance(state, dict) else None


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Containers are copied; `change` is applied to the tensors in them."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _each_tensor(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_each_tensor(each, change) for each in value)
    return value


def _delete(paths) -> None:
    for path in paths:
        artifacts.delete(path)

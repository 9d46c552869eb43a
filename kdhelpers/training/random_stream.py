"""The random numbers of one training, which no other training disturbs."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


class RandomStream:
    """The random numbers of one training: `with` takes its generators as torch's, and afterwards restores the caller's.

    A GPU's generator is exchanged, not copied: a CUDA graph draws from the generator with which it was captured.
    """

    def __init__(self, device: torch.device):
        self._device, self._own, self._generator = device, None, None

    def __enter__(self) -> None:
        self._callers = self._states()
        self._restore(self._own or self._callers)
        if self._device.type == "cuda":
            default = self._default()
            self._callers_generator = default.graphsafe_get_state()
            self._generator = self._generator or default.clone_state()
            default.graphsafe_set_state(self._generator)

    def __exit__(self, *_) -> None:
        self._own = self._states()
        self._restore(self._callers)
        if self._device.type == "cuda":
            self._default().graphsafe_set_state(self._callers_generator)

    @contextlib.contextmanager
    def recoverable(self) -> Iterator[None]:
        """`with` for a step that is captured: a failed capture leaves its generator unusable."""
        state = self._generator.get_state() if self._generator else None
        try:
            with self:
                yield
        except Exception:
            if state is not None:
                self._generator = torch.Generator(self._device)
                self._generator.set_state(state)
            raise

    def _default(self) -> torch.Generator:
        torch.cuda.init()
        return torch.cuda.default_generators[
            torch.cuda.current_device() if self._device.index is None else self._device.index
        ]

    def _states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        return [*states, torch.mps.get_rng_state()] if self._device.type == "mps" else states

    def _restore(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device.type == "mps":
            torch.mps.set_rng_state(states[1])

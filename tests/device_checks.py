"""Checks of what a program asks of a device, without one: every operation is looked at as it is dispatched."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations whose result the host reads, or whose result's shape depends on values: the host waits for the device.
WAITS = set(
    "_local_scalar_dense nonzero nonzero_static masked_select unique _unique _unique2 unique_dim unique_consecutive "
    "repeat_interleave.Tensor bincount equal is_nonzero".split()
)


class DeviceCheck(TorchDispatchMode):
    """Raises AssertionError for operations on tensors of a device type that a GPU waits for or that Apple's GPU lacks.

    kind: "cpu" to pretend that the CPU is the device, or "meta" for tensors without values. `count` counts operations.
    """

    def __init__(self, kind: str = "cpu"):
        super().__init__()
        self.kind, self.count = kind, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self._here(args, kwargs):
            self._check_inputs(func, args, kwargs)
        result = func(*args, **kwargs)
        if self._here(args, kwargs, result):
            self.count[name(func)] += 1
            self._check_result(func, args, kwargs, result)
        return result

    def _here(self, *trees) -> list[torch.Tensor]:
        return [leaf for leaf in tree_leaves(trees) if isinstance(leaf, torch.Tensor) and leaf.device.type == self.kind]

    def _check_inputs(self, func, args, kwargs) -> None:
        assert name(func) not in WAITS, f"{func}: the host waits for the device"
        if name(func).startswith("index.") or name(func).startswith("index_put"):
            by_mask = any(leaf.dtype == torch.bool for leaf in self._here(args[1]))
            fills = name(func).startswith("index_put") and args[2].numel() == 1  # torch runs it as masked_fill
            assert fills or not by_mask, f"{func}: the host waits for the number of true values"
        if name(func).startswith("index_select"):
            bytes_read = args[0].numel() * args[0].element_size()
            assert bytes_read <= args[0].untyped_storage().nbytes(), f"{func}: Apple copies the overlapping view first"
        if name(func).startswith("randint"):
            bounds = [value for value in args if isinstance(value, int)]
            assert max(bounds) < 2**31, f"{func}: Apple draws 32 bits"

    def _check_result(self, func, args, kwargs, result) -> None:
        assert not name(func).startswith("lift_fresh"), f"{func}: torch.tensor copies to the device, the host waits"
        for tensor in self._here(args, kwargs, result):
            assert tensor.dtype != torch.float64, f"{func}: Apple has no float64"
        if name(func).startswith("_to_copy") and not self._here(args):
            assert not kwargs.get("non_blocking"), f"{func}: Apple would read memory that may be freed by then"


def name(func) -> str:
    """Such as repeat_interleave.Tensor, without `aten.` and `.default`."""
    return str(func).removeprefix("aten.").removesuffix(".default")

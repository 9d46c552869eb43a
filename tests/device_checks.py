"""Checks of what a program asks of a device, without one: every operation is looked at as it is dispatched."""

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations whose result the host reads, or whose result's shape depends on values: the host waits for the device.
WAITS = set(
    "_local_scalar_dense nonzero nonzero_static masked_select _unique _unique2 unique_dim unique_consecutive "
    "repeat_interleave.Tensor bincount equal is_nonzero".split()
)


class DeviceCheck(TorchDispatchMode):
    """Raises AssertionError for operations that a GPU makes the host wait for, or that Apple's GPU lacks or fails.

    kind: the device type of the tensors that are looked at: "cpu" pretends that the CPU is the device, "meta" tensors
    have no values and take the branches of devices other than CPU and CUDA. `count` counts the operations by name.
    """

    def __init__(self, kind: str = "cpu"):
        super().__init__()
        self.kind, self.count, self._copies = kind, Counter(), CopiesFromLists(kind)

    def __enter__(self):
        self._copies.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._copies.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, str(func).removeprefix("aten.").removesuffix(".default")
        if self._of_kind(args, kwargs):
            self._check_inputs(name, args)
        result = func(*args, **kwargs)
        if tensors := self._of_kind(args, kwargs, result):
            self.count[name] += 1
            assert all(tensor.dtype != torch.float64 for tensor in tensors), f"{name}: Apple has no float64"
        if name == "_to_copy" and not self._of_kind(args):
            assert not kwargs.get("non_blocking"), "copy: Apple goes on to read memory that may be freed by then"
        return result

    def _of_kind(self, *trees) -> list[torch.Tensor]:
        return [leaf for leaf in tree_leaves(trees) if isinstance(leaf, torch.Tensor) and leaf.device.type == self.kind]

    def _check_inputs(self, name: str, args: tuple) -> None:
        assert name not in WAITS, f"{name}: the host waits for the device"
        if name.startswith(("index.", "index_put")):
            fills = name.startswith("index_put") and args[2].numel() == 1  # torch runs it as masked_fill
            by_mask = any(leaf.dtype == torch.bool for leaf in self._of_kind(args[1]))
            assert fills or not by_mask, f"{name}: the host waits for the number of true values"
        if name == "index_select":
            read = args[0].numel() * args[0].element_size()
            assert read <= args[0].untyped_storage().nbytes(), f"{name}: Apple first copies the whole overlapping view"


class CopiesFromLists(TorchFunctionMode):
    """Raises for a tensor made of Python's numbers on the device, and for random integers beyond Apple's 32 bits."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            from_host = isinstance(args[-1] if func is torch.Tensor.new_tensor else args[0], list | tuple | int | float)
            assert not (from_host and result.device.type == self.kind), f"{func.__name__}: the host waits for the copy"
        if func is torch.randint and result.device.type == self.kind != "cpu":
            bounds = [value for value in args if isinstance(value, int)]
            assert max(bounds) < 2**31, "randint: Apple draws 32 bits"
        return result

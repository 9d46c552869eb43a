"""A device that this machine lacks, by tensors that claim to be elsewhere while their values are on the CPU.

As on Apple's, float64 is an error, and as on any, so is an operator of tensors of two devices.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CLAIMED = torch.device("meta")  # torch computes no gradients on a device that its build lacks


class FakeTensor(torch.Tensor):
    @staticmethod
    def __new__(cls, value):
        if value.dtype == torch.float64:
            raise TypeError("float64 does not exist on the device")
        layout = {"strides": value.stride(), "storage_offset": value.storage_offset(), "dtype": value.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, value.shape, device=CLAIMED, **layout)

    def __init__(self, value):
        self.value = value

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, dict(kwargs or {}))


class FakeDevice(TorchDispatchMode):
    """Within it, tensors can be made on `device` and moved to it. `operators`: names of those that ran there."""

    def __init__(self, name):
        super().__init__()
        self.device, self.operators = torch.device(name), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = _run(function, args, dict(kwargs or {}))
        if any(isinstance(leaf, FakeTensor) for leaf in tree_leaves(result)):
            self.operators.append(function.name())
        return result


def _run(function, args, kwargs):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = any(isinstance(tensor, FakeTensor) for tensor in tensors)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type != "cpu"
        kwargs["device"] = torch.device("cpu")
    elif there and function is not torch.ops.aten.copy_.default:
        strangers = [tensor for tensor in tensors if tensor.dim() and not isinstance(tensor, FakeTensor)]
        assert not strangers, f"{function}: tensors of two devices"
    args, kwargs = tree_map(lambda leaf: leaf.value if isinstance(leaf, FakeTensor) else leaf, (args, kwargs))
    result = function(*args, **kwargs)
    if function._schema.is_mutable:
        return tensors[0]
    return tree_map(lambda leaf: FakeTensor(leaf) if there and torch.is_tensor(leaf) else leaf, result)

"""Shake-Shake networks for 32 px (Gastaldi, Shake-Shake regularization, 2017): two residual branches, mixed at random.

    y = x + a F1(x) + (1 - a) F2(x)      in the backward pass, b replaces a: dL/dF1 = b dL/dy, dL/dF2 = (1 - b) dL/dy

In training, a and b are independent and uniform in [0, 1], and drawn in each block; in eval mode a = 1/2. "26 2x32d" is
depth 26 with base_channels 32. The layers have the names of a published PyTorch implementation, so its weights load.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kdhelpers.models.architecture import FLAG, Architecture, Choice, initialise, stage


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, first: Tensor, second: Tensor, ahead: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return torch.lerp(second, first, ahead)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (back,) = ctx.saved_tensors
        share = grad * back
        return share, grad - share, None, None


def shake(first: Tensor, second: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """forward * first + (1 - forward) * second; the gradient of `first` is backward * grad, of `second` the rest.

    first, second: [B, ...] of one shape and dtype. forward, backward: coefficients, broadcast to that shape from e.g.
    [B, 1, 1, 1], without a gradient; equal ones give the true gradient. Raises ValueError if the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"first {tuple(first.shape)} and second {tuple(second.shape)}: must have one shape")
    return _Mix.apply(first, second, forward.to(first.dtype), backward.to(first.dtype))


class Branch(nn.Module):
    """bn(conv(relu(bn(conv(a))))) of an active map a."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, active: Tensor) -> Tensor:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(active)), inplace=True)))


class Skip(nn.Module):
    """The shortcut to another shape: half of its channels from the active map, half from the map moved by one pixel."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels // 2, 1, stride, bias=False)
        self.conv2 = nn.Conv2d(channels_in, channels // 2, 1, stride, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, active: Tensor) -> Tensor:
        moved = F.pad(active[:, :, 1:, 1:], (0, 1, 0, 1))
        return self.bn(torch.cat([self.conv1(active), self.conv2(moved)], 1))


class ShakeBlock(nn.Module):
    """x + the mixture of two branches of relu(x); if shapes differ, the shortcut is a `Skip` of relu(x)."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.residual_path1 = Branch(channels_in, channels, stride)
        self.residual_path2 = Branch(channels_in, channels, stride)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut.add_module("skip", Skip(channels_in, channels, stride))

    def forward(self, x: Tensor, coefficients: Tensor | None = None) -> Tensor:
        """coefficients: the forward and the backward one, [2, B or 1, 1, 1, 1]; None for the mean of the branches."""
        active = F.relu(x)
        shortcut = self.shortcut(active) if len(self.shortcut) else x
        first, second = self.residual_path1(active), self.residual_path2(active)
        mixed = torch.lerp(second, first, 0.5) if coefficients is None else shake(first, second, *coefficients)
        return shortcut + mixed


class Stage(nn.Sequential):
    """Blocks in a row, each with coefficients of its own."""

    def forward(self, x: Tensor, coefficients: Sequence[Tensor | None]) -> Tensor:
        for block, own in zip(self, coefficients, strict=True):
            x = block(x, own)
        return x


class ShakeShake(nn.Module):
    """depth = 6 n + 2 layers: a 3x3 stem of 16 channels, three stages of n blocks with b, 2 b, 4 b channels (b:
    base_channels) at 32, 16, 8 px, ReLU, global pooling, linear. Its feature maps have no ReLU.

    shake_forward, shake_backward: draw that coefficient, otherwise it is 1/2. shake_image: draw per image, otherwise
    per batch.
    """

    def __init__(
        self,
        num_classes: int,
        depth: int,
        base_channels: int,
        shake_forward: bool,
        shake_backward: bool,
        shake_image: bool,
    ):
        super().__init__()
        self.count, self.shaken = (depth - 2) // 6, (shake_forward, shake_backward, shake_image)
        widths = (base_channels, 2 * base_channels, 4 * base_channels)
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.stage1 = _stage(16, widths[0], self.count, 1)
        self.stage2 = _stage(widths[0], widths[1], self.count, 2)
        self.stage3 = _stage(widths[1], widths[2], self.count, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        initialise(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(images)))  # [B, 16, 32, 32]
        coefficients = self._draw(x) if self.training else [[None] * self.count] * 3
        for layers, own in zip((self.stage1, self.stage2, self.stage3), coefficients, strict=True):
            x = layers(x, own)
        return self.fc(self.avgpool(F.relu(x)).flatten(1))  # x: [B, 4 base_channels, 8, 8]

    def _draw(self, x: Tensor) -> Tensor:
        """The coefficients of all blocks in one draw, a single launch on a GPU: [3, n, 2, B or 1, 1, 1, 1]."""
        ahead, back, per_image = self.shaken
        shape = (len(x) if per_image else 1, 1, 1, 1)
        coefficients = x.new_full((3, self.count, 2, *shape), 0.5)
        coefficients[:, :, 1 - ahead : 1 + back] = torch.rand(3, self.count, ahead + back, *shape, device=x.device)
        return coefficients


def _stage(channels_in: int, channels: int, count: int, stride: int) -> Stage:
    blocks = stage(ShakeBlock, channels_in, channels, count, stride)
    return Stage(OrderedDict((f"block{number}", block) for number, block in enumerate(blocks, 1)))


ARCHITECTURES = {
    "shake_shake": Architecture(
        ShakeShake,
        {"stem": "bn", "stage1": "stage1", "stage2": "stage2", "stage3": "stage3"},
        "fc",
        options={
            "depth": Choice(26, range(8, 1203, 6)),
            "base_channels": Choice(32, range(2, 513, 2), usual=(64, 96, 16, 8)),
            "shake_forward": FLAG,
            "shake_backward": FLAG,
            "shake_image": FLAG,
        },
        pooling="avgpool",
        pre_activations={},
    )
}

"""What each module of a network outputs for two images, and which outputs are feature maps."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from kdhelpers.models.token_maps import channels_first, tokens_as_map

IMAGES = 2
MOST_TOKENS = 8  # class token, distillation token, registers
Layout = Callable[[Tensor], Tensor] | None


@dataclass(frozen=True)
class Call:
    """The last call of a module. side: of its map, 0 if it outputs none; entered: the side of the map that it takes.

    layout: what makes [B, c, h, w] of the output; None for an output that is such a map.
    """

    path: str
    module: nn.Module
    inputs: Tensor | None
    output: Tensor
    side: int
    entered: int
    layout: Layout

    @property
    def kind(self) -> str:
        return type(self.module).__name__

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image: channels, height, width of a map."""
        return tuple((self.layout(self.output) if self.layout else self.output).shape[1:])


@dataclass(frozen=True)
class Trace:
    """The calls by path, in the order in which they end, and the logits."""

    calls: dict[str, Call]
    logits: Tensor


@torch.no_grad()
def trace(network: nn.Module, image_size: int) -> Trace:
    """One forward in eval mode. The network and torch's random numbers do not change.

    Raises ValueError for a network that does not take images of this size, changes them, or does not return one tensor.
    """
    modes = {module: module.training for module in network.modules()}
    calls: dict[str, Call] = {}
    grid = [image_size]
    handles = [
        module.register_forward_hook(partial(_note, calls, grid, path))
        for path, module in network.named_modules()
        if path
    ]
    weight = next(network.parameters(), torch.zeros(0))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, 3, image_size, image_size, generator=generator).to(weight)
    given = images.clone()
    try:
        logits = network.eval()(given)
    except (Exception, SystemExit) as error:  # the network's own code may raise any error
        text = " ".join(str(error).split())
        remedy = "take another image_size, or a network of images [B, 3, H, W]"
        raise ValueError(f"does not take images of {image_size} px ({text}); {remedy}") from error
    finally:
        for handle in handles:
            handle.remove()
        network.train()  # clears what some networks keep of their weights in eval mode
        for module, mode in modes.items():
            module.training = mode
    if not torch.equal(given, images):
        raise ValueError("changes its input in place, which the other network reads too; write images = images - mean")
    if not isinstance(logits, Tensor):
        raise ValueError(f"returns a {type(logits).__name__}; it must return the logits alone, [B, classes]")
    return Trace(calls, logits)


def _note(calls: dict, grid: list, path: str, module: nn.Module, inputs: tuple, output: object) -> None:
    taken = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
    if isinstance(output, Tensor):
        entered, _ = (0, None) if taken is None else _map_form(taken, grid[0])
        side, layout = _map_form(output, grid[0])
        grid[0] = side if output.ndim == 4 and side else grid[0]
        calls.pop(path, None)  # a second call ends later
        calls[path] = Call(path, module, taken, output, side, entered, layout)


def _map_form(tensor: Tensor, grid: int) -> tuple[int, Layout]:
    """(side, layout) of a square map; grid: the side of the latest map, which the tokens of a transformer cover."""
    if len(tensor) != IMAGES or tensor.ndim not in (3, 4):
        return 0, None
    if tensor.ndim == 3:
        tokens = tensor.shape[1]
        side = grid if 0 <= tokens - grid**2 <= MOST_TOKENS else math.isqrt(tokens)
        extra = tokens - side**2
        return (side, partial(tokens_as_map, extra=extra)) if side and extra <= MOST_TOKENS else (0, None)
    _, a, b, c = tensor.shape
    if b == c:
        return b, None
    return (a, channels_first) if a == b else (0, None)

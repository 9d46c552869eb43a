"""RandAugment (Cubuk et al. 2020): per image, a random sequence of torchvision's fourteen operations.

On a GPU every operation transforms all images, and each image keeps the result of its own operation: no host
synchronisation. On the CPU an operation transforms only the images that drew it.
"""

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from kdhelpers.device import to_device

OPERATIONS = 14
CODES = 2 * OPERATIONS  # each operation in two directions; an unsigned operation has two equal codes
FIRST_CHANGE, FIRST_UNSIGNED = 12, 20  # codes: identity (0, 1), movements of pixels, changes of colour
LEVELS = 30  # highest magnitude

Change = Callable[[Tensor], Tensor]


def randaugment(images: Tensor, codes: Tensor, magnitude: int) -> Tensor:
    """images uint8 [B, 3, H, W]; codes int64 [B, n] in 0..CODES - 1, the operations of each image in their order."""
    sources = _sources(magnitude, *images.shape[2:], images.device)
    codes = torch.where(codes < FIRST_UNSIGNED, codes, codes // 2 * 2)
    for drawn in codes.unbind(1):
        padded = F.pad(images.flatten(2), (1, 0))
        result = padded.gather(2, sources[drawn][:, None].expand(-1, images.shape[1], -1)).view(images.shape)
        for code, change in _changes(magnitude).items():
            chosen = drawn == code
            if _transforms_all(images.device):
                result = torch.where(chosen[:, None, None, None], change(images), result)
            elif chosen.any():
                result[chosen] = change(images[chosen])
        images = result
    return images


def _transforms_all(device: torch.device) -> bool:
    return device.type != "cpu"


@cache
def _sources(magnitude: int, height: int, width: int, device: torch.device) -> Tensor:
    """int64 [CODES, H * W]: where a code's movement takes each pixel from, counted from 1; 0 for a black pixel.

    Made once by torchvision's own operations, which would copy a matrix to the device at each call: the host waits.
    """
    numbers = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    moves = {code: move(numbers) for code, move in _movements(magnitude, width).items()}
    return to_device(torch.stack([moves.get(code, numbers).flatten() for code in range(CODES)]).long(), device)


def _both_ways(first: int, operations: list[tuple[Callable[[float, Tensor], Tensor], float]]) -> dict[int, Change]:
    """code -> operation: each with its strength, and at the next code with the opposite."""
    pairs = [(operation, sign * strength) for operation, strength in operations for sign in (1, -1)]
    return {code: partial(*pair) for code, pair in enumerate(pairs, first)}


def _upto(strongest: float, magnitude: int) -> float:
    return torch.linspace(0, strongest, LEVELS + 1)[magnitude].item()  # rounded like torchvision


def _movements(magnitude: int, size: int) -> dict[int, Change]:
    from torchvision.transforms import functional as tv

    def moved(images: Tensor, translate=(0, 0), shear=(0.0, 0.0), corner=False) -> Tensor:
        centre = [0, 0] if corner else None
        return tv.affine(images, 0.0, list(translate), 1.0, list(shear), center=centre)

    def degrees(slope: float) -> float:
        return math.degrees(math.atan(slope))

    shear, distance = _upto(0.3, magnitude), _upto(150 / 331 * size, magnitude)
    operations = [
        (lambda m, x: moved(x, shear=(degrees(m), 0.0), corner=True), shear),
        (lambda m, x: moved(x, shear=(0.0, degrees(m)), corner=True), shear),
        (lambda m, x: moved(x, translate=(int(m), 0)), distance),
        (lambda m, x: moved(x, translate=(0, int(m))), distance),
        (lambda m, x: tv.rotate(x, m), _upto(30, magnitude)),
    ]
    return _both_ways(2, operations)


@cache
def _smoothing(device: torch.device) -> Tensor:
    kernel = torch.ones(3, 3)
    kernel[1, 1] = 5.0
    return to_device((kernel / kernel.sum()).expand(3, 1, 3, 3).contiguous(), device)


def _sharpen(images: Tensor, factor: float) -> Tensor:
    """torchvision's `adjust_sharpness` of colour images, whose kernel is copied to the device at each call."""
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(images.float(), _smoothing(images.device), groups=3).round_()
    return (factor * images + (1.0 - factor) * smooth).clamp_(0, 255).to(torch.uint8)


@cache
def _changes(magnitude: int) -> dict[int, Change]:
    from torchvision.transforms import functional as tv
    from torchvision.transforms.v2 import functional as tv2

    adjustments = [tv.adjust_brightness, tv.adjust_saturation, tv.adjust_contrast, _sharpen]
    strength = _upto(0.9, magnitude)
    signed = [(lambda m, x, adjust=adjust: adjust(x, 1 + m), strength) for adjust in adjustments]
    bits = 8 - round(magnitude / (LEVELS / 4))
    threshold = torch.linspace(255, 0, LEVELS + 1)[magnitude].item()
    unsigned = [
        lambda x: tv.posterize(x, bits),
        lambda x: tv.solarize(x, threshold),
        tv.autocontrast,
        tv2.equalize,  # the older one makes the host wait for each channel of each image
    ]
    return _both_ways(FIRST_CHANGE, signed) | dict(zip(range(FIRST_UNSIGNED, CODES, 2), unsigned, strict=True))

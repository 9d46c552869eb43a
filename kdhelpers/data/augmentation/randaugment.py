"""RandAugment (Cubuk et al. 2020): per image, a random sequence of torchvision's fourteen operations.

On a GPU every operation transforms all images, and each image keeps the result of its own operation: no host
synchronisation. On the CPU an operation transforms only the images that drew it.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

OPERATIONS = 14
CODES = 2 * OPERATIONS  # each operation in two directions; an unsigned operation has two equal codes
LEVELS = 30  # highest magnitude


def randaugment(images: Tensor, codes: Tensor, magnitude: int) -> Tensor:
    """images uint8 [B, 3, H, W]; codes int64 [B, n] in 0..CODES - 1, the operations of each image in their order."""
    variants = list(_variants(magnitude, images.shape[-1]))
    for drawn in codes.unbind(1):
        result = images.clone()
        for both, change in variants:
            chosen = (drawn[:, None] == torch.tensor(both, device=drawn.device)).any(1)
            if images.device.type != "cpu":
                result = torch.where(chosen[:, None, None, None], change(images), result)
            elif chosen.any():
                result[chosen] = change(images[chosen])
        images = result
    return images


def _variants(magnitude: int, size: int) -> Iterator[tuple[list[int], Callable[[Tensor], Tensor]]]:
    """(codes, transform) of torchvision's operations at `magnitude` in 0..LEVELS, without the identity (codes 0, 1)."""
    signed, plain = _signed(magnitude, size), _plain(magnitude)
    for place, (operation, strength) in enumerate(signed, 1):
        yield [2 * place], partial(operation, strength)
        yield [2 * place + 1], partial(operation, -strength)
    for place, change in enumerate(plain, 1 + len(signed)):
        yield [2 * place, 2 * place + 1], change


def _signed(magnitude: int, size: int) -> list[tuple[Callable[[float, Tensor], Tensor], float]]:
    from torchvision.transforms import functional as F

    def moved(images: Tensor, angle=0.0, translate=(0, 0), shear=(0.0, 0.0), corner=False) -> Tensor:
        centre = [0, 0] if corner else None
        return F.affine(images, angle, list(translate), 1.0, list(shear), center=centre)

    def degrees(slope: float) -> float:
        return math.degrees(math.atan(slope))

    def upto(strongest: float) -> float:
        return torch.linspace(0, strongest, LEVELS + 1)[magnitude].item()  # rounded like torchvision

    return [
        (lambda m, x: moved(x, shear=(degrees(m), 0.0), corner=True), upto(0.3)),
        (lambda m, x: moved(x, shear=(0.0, degrees(m)), corner=True), upto(0.3)),
        (lambda m, x: moved(x, translate=(int(m), 0)), upto(150 / 331 * size)),
        (lambda m, x: moved(x, translate=(0, int(m))), upto(150 / 331 * size)),
        (lambda m, x: F.rotate(x, m), upto(30)),
        (lambda m, x: F.adjust_brightness(x, 1 + m), upto(0.9)),
        (lambda m, x: F.adjust_saturation(x, 1 + m), upto(0.9)),
        (lambda m, x: F.adjust_contrast(x, 1 + m), upto(0.9)),
        (lambda m, x: F.adjust_sharpness(x, 1 + m), upto(0.9)),
    ]


def _plain(magnitude: int) -> list[Callable[[Tensor], Tensor]]:
    from torchvision.transforms import functional as F

    bits = 8 - round(magnitude / (LEVELS / 4))
    return [
        lambda x: F.posterize(x, bits),
        lambda x: F.solarize(x, torch.linspace(255, 0, LEVELS + 1)[magnitude].item()),
        F.autocontrast,
        F.equalize,
    ]

"""RandAugment (Cubuk et al. 2020): per image, a random sequence of torchvision's fourteen operations.

On a GPU every operation transforms all images, and each image keeps the result of its own operation: no host
synchronisation. On the CPU an operation transforms only the images that drew it.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from kdhelpers.device import to_device

OPERATIONS = 14
CODES = 2 * OPERATIONS  # each operation in two directions; an unsigned operation has two equal codes
LEVELS = 30  # highest magnitude
SIGNED_CODES = 20  # codes below are of signed operations (and of the identity, 0 and 1)

Change = Callable[[Tensor], Tensor]


def randaugment(images: Tensor, codes: Tensor, magnitude: int) -> Tensor:
    """images uint8 [B, 3, H, W]; codes int64 [B, n] in 0..CODES - 1, the operations of each image in their order."""
    changes = _changes(magnitude, *images.shape[2:], images.device)
    codes = torch.where(codes < SIGNED_CODES, codes, codes // 2 * 2)
    for drawn in codes.unbind(1):
        result = images.clone()
        for code, change in changes.items():
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
def _changes(magnitude: int, height: int, width: int, device: torch.device) -> dict[int, Change]:
    """code -> torchvision's operation at `magnitude` in 0..LEVELS; the identity and second equal codes are left out."""
    changes = {}
    for place, (moves, operation, strength) in enumerate(_signed(magnitude, width), 1):
        for code, signed in ((2 * place, strength), (2 * place + 1, -strength)):
            change = partial(operation, signed)
            changes[code] = _move_by_table(change, height, width, device) if moves else change
    return changes | {code: change for code, change in zip(range(SIGNED_CODES, CODES, 2), _plain(magnitude), strict=True)}


def _move_by_table(move: Change, height: int, width: int, device: torch.device) -> Change:
    """The same movement of pixels by a table on the device: for each pixel its source, 0 for none, else 1 and above.

    torchvision copies a matrix to the device at each call, for which the host waits.
    """
    numbers = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    table = to_device(move(numbers).flatten().long(), device)
    return lambda images: F.pad(images.flatten(2), (1, 0)).index_select(2, table).view(images.shape)


def _signed(magnitude: int, size: int) -> Iterator[tuple[bool, Callable[[float, Tensor], Tensor], float]]:
    """(whether it only moves pixels, operation of strength and images, strength)."""
    from torchvision.transforms import functional as tv

    def moved(images: Tensor, translate=(0, 0), shear=(0.0, 0.0), corner=False) -> Tensor:
        centre = [0, 0] if corner else None
        return tv.affine(images, 0.0, list(translate), 1.0, list(shear), center=centre)

    def degrees(slope: float) -> float:
        return math.degrees(math.atan(slope))

    def upto(strongest: float) -> float:
        return torch.linspace(0, strongest, LEVELS + 1)[magnitude].item()  # rounded like torchvision

    yield True, lambda m, x: moved(x, shear=(degrees(m), 0.0), corner=True), upto(0.3)
    yield True, lambda m, x: moved(x, shear=(0.0, degrees(m)), corner=True), upto(0.3)
    yield True, lambda m, x: moved(x, translate=(int(m), 0)), upto(150 / 331 * size)
    yield True, lambda m, x: moved(x, translate=(0, int(m))), upto(150 / 331 * size)
    yield True, lambda m, x: tv.rotate(x, m), upto(30)
    yield False, lambda m, x: tv.adjust_brightness(x, 1 + m), upto(0.9)
    yield False, lambda m, x: tv.adjust_saturation(x, 1 + m), upto(0.9)
    yield False, lambda m, x: tv.adjust_contrast(x, 1 + m), upto(0.9)
    yield False, lambda m, x: tv.adjust_sharpness(x, 1 + m), upto(0.9)


def _plain(magnitude: int) -> list[Change]:
    from torchvision.transforms import functional as tv
    from torchvision.transforms.v2 import functional as tv2

    bits = 8 - round(magnitude / (LEVELS / 4))
    threshold = torch.linspace(255, 0, LEVELS + 1)[magnitude].item()
    return [
        lambda x: tv.posterize(x, bits),
        lambda x: tv.solarize(x, threshold),
        tv.autocontrast,
        tv2.equalize,  # the older one makes the host wait for each channel of each image
    ]

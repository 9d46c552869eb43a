"""Colour jitter with one factor per sample, in torchvision's formulas and a fixed order.

torchvision shuffles the order of the four steps per call; here it is always brightness, contrast, saturation, hue.
"""

import torch
from torch import Tensor


def jitter(images: Tensor, factors: Tensor) -> Tensor:
    """images float [B, 3, H, W] in 0..1; factors [B, 4]: brightness, contrast, saturation (1 = unchanged), hue shift
    in turns (0 = unchanged)."""
    brightness, contrast, saturation, hue = (factor[:, None, None, None] for factor in factors.unbind(-1))
    images = (images * brightness).clamp(0, 1)
    images = blend(images, grey(images).mean((1, 2, 3), keepdim=True), contrast)
    images = blend(images, grey(images), saturation)
    return shift_hue(images, hue)


def grey(images: Tensor) -> Tensor:
    """Luma [B, 1, H, W] with the weights of ITU-R 601, as in torchvision and PIL."""
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[:, None]


def blend(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(images), images, share).clamp(0, 1)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue in HSV by `turns` [B, 1, 1, 1], keeping value and saturation."""
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    red, green, blue = images.unbind(1)
    safe = chroma.clamp(min=torch.finfo(images.dtype).tiny)  # a grey pixel has chroma 0, so any hue will do
    not_red = torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    sixth = torch.where(value == red, (green - blue) / safe, not_red)
    sixth = (sixth + 6 * turns[:, 0])[:, None]
    # Each channel is the value less a share of the chroma, by its distance from the hue on the colour circle.
    distances = torch.arange(5, 0, -2, device=images.device)[:, None, None]  # red, green, blue
    place = (sixth + distances) % 6
    share = torch.minimum(place, 4 - place).clamp(0, 1)
    return value[:, None] - chroma[:, None] * share

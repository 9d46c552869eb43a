"""The outputs of transformers as feature maps [B, c, h, w]."""

import math

from torch import Tensor


def tokens_as_map(tokens: Tensor, extra: int) -> Tensor:
    """[B, extra + h w, c] -> [B, c, h, w], a square: without the first `extra` tokens, such as the class token."""
    patches = tokens[:, extra:].transpose(1, 2)
    return patches.unflatten(2, (math.isqrt(patches.shape[2]),) * 2)


def channels_first(feature_map: Tensor) -> Tensor:
    """[B, h, w, c] -> [B, c, h, w]."""
    return feature_map.permute(0, 3, 1, 2)

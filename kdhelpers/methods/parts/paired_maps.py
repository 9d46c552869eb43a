"""Feature maps of two networks, side by side: which belong together, at one size, as unit vectors."""

from collections.abc import Collection, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from kdhelpers.messages import inform
from kdhelpers.methods.parts.tensors import full_precision

EPS = 1e-12  # the smallest norm that `unit` divides by, as in F.normalize


def paired_maps(student_maps: Collection[str], teacher_maps: Collection[str]) -> list[tuple[str, str]]:
    """The names (student's, teacher's) of the maps that a method compares: all except each network's first, in order.

    student_maps, teacher_maps: `Outputs.feature_maps`, or their names. Of a network whose maps have one size, such as a
    ViT, as many as the other network has are taken, evenly spaced, the last among them. The user is informed of names
    that differ. Raises ValueError with both lists if the numbers differ otherwise, and if a network has no map after
    its first.
    """
    student, teacher = list(student_maps)[1:], list(teacher_maps)[1:]
    chosen = _evenly(student_maps, len(teacher)), _evenly(teacher_maps, len(student))
    if not chosen[0] or len(chosen[0]) != len(chosen[1]):
        raise ValueError(
            f"feature_maps: the student has {len(student)} after its first ({', '.join(student_maps)}), the teacher"
            f" {len(teacher)} ({', '.join(teacher_maps)}); take two networks with the same number, at least one, or "
            'choose them: model_options={"feature_maps": [...]} of a network of torchvision, timm or your own'
        )
    inform_of_pairs(pairs := list(zip(*chosen, strict=True)))
    return pairs


def inform_of_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """A line with the names (student's, teacher's) of the maps that are compared, if they differ."""
    if any(student != teacher for student, teacher in pairs):
        inform(f"feature maps, student > teacher: {', '.join(map(' > '.join, pairs))}")


def _evenly(maps: Collection[str], count: int) -> list[str]:
    """The maps after the first; `count` of them, evenly spaced, if there are more and all have one size."""
    names = list(maps)[1:]
    sizes = {maps[name].shape[2:] for name in names} if isinstance(maps, Mapping) else set()
    if not 0 < count < len(names) or len(sizes) != 1:
        return names
    return [names[len(names) * (place + 1) // count - 1] for place in range(count)]


def same_size(student_map: Tensor, teacher_map: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps [B, c, h, w] at the smaller height and the smaller width: the larger one is average-pooled."""
    size = [min(sides) for sides in zip(student_map.shape[2:], teacher_map.shape[2:], strict=True)]
    return pooled(student_map, size), pooled(teacher_map, size)


def pooled(feature_map: Tensor, size: int | list[int]) -> Tensor:
    """The map [B, c, h, w] at the height and width `size`, by adaptive average pooling.

    A side that `size` does not divide has overlapping bins. A smaller map is repeated.
    """
    size = [size, size] if isinstance(size, int) else size
    return feature_map if list(feature_map.shape[2:]) == size else F.adaptive_avg_pool2d(feature_map, size)


def unit(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """x / ||x|| along `dim`, float32 (float64 for float64 input); a vector of norm 0 stays 0 and gets no gradient.

    A norm below 1e-12 counts as 0. F.normalize divides by 1e-12 there, which multiplies the gradient by 1e12.
    """
    x = full_precision(x)
    squares = x.square().sum(dim, keepdim=True)
    is_zero = squares < EPS**2
    norm = squares.masked_fill(is_zero, 1).sqrt()
    return (x / norm).masked_fill(is_zero, 0)

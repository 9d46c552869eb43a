"""Ranges of hyperparameters: the annotation of a method's field holds its range."""

from typing import Annotated, NamedTuple


class Range(NamedTuple):
    """The closed interval of a hyperparameter."""

    low: float
    high: float = 1e6
    is_weight: bool = False  # a method's weights must not all be 0


Weight = Annotated[float, Range(0, is_weight=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Temperature = Annotated[float, Range(0.01, 1000)]  # divides logits
ContrastTemperature = Annotated[float, Range(0.001, 100)]  # divides cosines
Count = Annotated[int, Range(1)]
Width = Annotated[int, Range(1, 65536)]


def check_range(name: str, value: float, low: float, high: float = 1e6) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} = {value}: must lie in [{low}, {high}]")

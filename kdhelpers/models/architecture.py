"""The entries of the registry, and the initialisation of the CIFAR networks."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

from kdhelpers.models.feature_extractor import ReturnNodes
from kdhelpers.nearest import check_known


@dataclass(frozen=True)
class Choice:
    """The values of an option that has too many to try, or does not change a shape: `default`, and any in `allowed`.

    Iterates over the default and `usual`, the values that `identify_architecture` tries.
    """

    default: int | bool
    allowed: range | tuple
    usual: tuple = ()

    def __contains__(self, value: object) -> bool:
        return type(value) is type(self.default) and value in self.allowed

    def __iter__(self) -> Iterator:
        return iter((self.default, *self.usual))

    def __str__(self) -> str:
        if isinstance(self.allowed, tuple):
            return f"one of {', '.join(map(str, self.allowed))}"
        step = f" in steps of {self.allowed.step}" if self.allowed.step > 1 else ""
        return f"a whole number from {self.allowed[0]} to {self.allowed[-1]}{step}"


FLAG = Choice(True, (True, False))


@dataclass(frozen=True)
class Architecture:
    """One entry of `MODELS`.

    build: called as build(num_classes, **options), also with pretrained=True if `pretrained` holds.
    feature_maps: name of a feature map -> path of the module that outputs it, from the input to the logits.
    classifier: path of the module whose input is the embedding and whose output is the logits.
    options: name -> allowed values, the default first; a tuple or a `Choice`.
    pretrained: whether ImageNet weights exist; `pretrained_needs` are the option values that they require.
    pooling: path of the global pooling, whose input is the final map; "" if it is not a module of its own.
    pre_activations: name of a feature map -> path of the ReLU whose input is that map before its activation. A map that
    is left out has none. None: unknown.

    Raises ValueError for a name in `pre_activations` that is not a feature map's.
    """

    build: Callable[..., nn.Module]
    feature_maps: Mapping[str, str]
    classifier: str
    options: Mapping[str, Collection | Choice] = field(default_factory=dict)
    pretrained: bool = False
    pretrained_needs: Mapping[str, object] = field(default_factory=dict)
    pooling: str = ""
    pre_activations: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name in self.pre_activations or ():
            check_known("pre_activations", name, self.feature_maps)

    @property
    def return_nodes(self) -> ReturnNodes:
        return ReturnNodes(dict(self.feature_maps), self.classifier, self.pooling, self.pre_activations)


def stage(
    block: Callable[..., nn.Module], channels_in: int, channels: int, count: int, stride: int, *arguments
) -> nn.Sequential:
    """`count` blocks, block(channels_in, channels, stride, *arguments): the first has the stride and the new width."""
    first = block(channels_in, channels, stride, *arguments)
    return nn.Sequential(first, *(block(channels, channels, 1, *arguments) for _ in range(count - 1)))


def initialise(model: nn.Module) -> nn.Module:
    """The CRD benchmark's initialisation: He normal by fan-out for convolutions, BatchNorm at 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return model

"""What the registry knows of a network, and how the CIFAR networks are initialised."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

from kdhelpers.models.feature_extractor import ReturnNodes


@dataclass(frozen=True)
class Choice:
    """The values of an option that are too many to try, or change no shape: `default`, and all those in `allowed`.

    Iterates, as a tuple of all values would, over the default and then `usual`: what unknown weights are held against.
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

    build: called as build(num_classes, **options), with pretrained=True added only where `pretrained` holds.
    feature_maps: name of a feature map -> path of the module that puts it out, from the input to the output.
    classifier: path of the module whose input is the embedding and whose output is the logits.
    options: name -> allowed values, the default first; a tuple or a `Choice`.
    later: options that came after runs were published; they are told only where they differ from their default.
    pretrained: whether ImageNet weights exist; `pretrained_needs` are the option values under which they fit.
    """

    build: Callable[..., nn.Module]
    feature_maps: Mapping[str, str]
    classifier: str
    options: Mapping[str, Collection | Choice] = field(default_factory=dict)
    later: frozenset[str] = frozenset()
    pretrained: bool = False
    pretrained_needs: Mapping[str, object] = field(default_factory=dict)

    @property
    def return_nodes(self) -> ReturnNodes:
        return ReturnNodes(dict(self.feature_maps), self.classifier)


def initialise(model: nn.Module) -> nn.Module:
    """The CRD benchmark's start: He's normal by fan-out for convolutions, BatchNorm at 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return model

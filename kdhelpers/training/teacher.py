"""The frozen teacher of a training."""

import torch
from torch import Tensor, nn

from kdhelpers.device import memory_format
from kdhelpers.models import FeatureExtractor, Outputs, fold_batchnorm
from kdhelpers.weights.load import Weights, find_weights, load_model


class Teacher:
    """A frozen network as a callable `view [B, 3, H, W] -> Outputs`, without a graph.

    It is in eval mode, its BatchNorm folded into the convolutions before it, in the device's `memory_format` and the
    loop's precision. `network` is the unfolded original, `description` the sidecar of its weights, `sha256` their
    hash. pre_activations: whether its outputs have them.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        weights: Weights | None = None,
        pre_activations: bool = False,
    ):
        device = torch.device(device)
        self.network = network.to(device).eval().requires_grad_(False)
        folded = fold_batchnorm(self.network).to(device, dtype, memory_format=memory_format(device))
        self.features = FeatureExtractor(folded.requires_grad_(False), pre_activations=pre_activations)
        self.dtype = dtype
        self.description, self.sha256 = (weights.description, weights.sha256) if weights else ({}, "")

    @property
    def classifier(self) -> nn.Module:
        """The original's, whose weights have the precision of their file."""
        return self.network.get_submodule(self.features.classifier)

    def __call__(self, view: Tensor, stop_at: str | None = None) -> Outputs:
        with torch.no_grad():
            return self.features(view.to(self.dtype), stop_at=stop_at)


def load_teacher(
    weights: str | Weights,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    pre_activations: bool = False,
) -> Teacher:
    """Stored weights, by name or path or as found, as a `Teacher` on the device. Raises as `load_model` does."""
    weights = find_weights(weights) if isinstance(weights, str) else weights
    return Teacher(load_model(weights), device, dtype, weights, pre_activations)

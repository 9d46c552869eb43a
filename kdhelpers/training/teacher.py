"""The frozen teacher of a training."""

import torch
from torch import Tensor, nn

from kdhelpers.models import FeatureExtractor, Outputs, fold_batchnorm
from kdhelpers.weights.load import find_weights, load_model


class Teacher:
    """A frozen network as a callable `view [B, 3, H, W] -> Outputs`, without a graph.

    It is in eval mode, its BatchNorm folded into the convolutions before it, channels_last, in the loop's precision.
    `network` is the unfolded original; `sha256` is that of its weight file; `described` its sidecar.
    """

    def __init__(self, network: nn.Module, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        self.network = network.to(device).eval().requires_grad_(False)
        folded = fold_batchnorm(self.network).to(device, dtype, memory_format=torch.channels_last)
        self.observed = FeatureExtractor(folded.requires_grad_(False), *_return_nodes(network))
        self.dtype, self.described, self.sha256 = dtype, {}, ""

    def __call__(self, view: Tensor, stop_at: str | None = None) -> Outputs:
        with torch.no_grad():
            return self.observed(view.to(self.dtype), stop_at=stop_at)


def _return_nodes(network: nn.Module) -> tuple:
    return (network.return_nodes.feature_maps, network.return_nodes.classifier)


def load_teacher(name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Teacher:
    """The stored network as a `Teacher` on the device. Raises as `load_model` does."""
    weights = find_weights(name)
    teacher = Teacher(load_model(weights), device, dtype)
    teacher.described, teacher.sha256 = weights.description, weights.sha256
    return teacher

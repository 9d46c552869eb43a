"""A student that predicts by a head on its final map, in place of its own classifier."""

from torch import Tensor, nn

from kdhelpers.models.feature_extractor import FeatureExtractor, ReturnNodes


class HeadedNetwork(nn.Module):
    """images -> head(final map of `network`): a network like any other, with return_nodes.

    head: final map [B, c, h, w] -> logits [B, C]. Its submodules `pool`, the global pooling, and `classifier` take the
    place of the network's: their inputs are the final map and the embedding. The feature maps are the network's. The
    network's own classifier is computed and not used.
    """

    def __init__(self, network: nn.Module, head: nn.Module):
        super().__init__()
        self.features, self.head = FeatureExtractor(network, feature_maps={}), head
        maps, relus = network.return_nodes.feature_maps, network.return_nodes.pre_activations
        relus = None if relus is None else _below(relus)
        layouts = network.return_nodes.layouts
        self.return_nodes = ReturnNodes(_below(maps), "head.classifier", "head.pool", relus, layouts)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).final_map)


def _below(paths: dict[str, str]) -> dict[str, str]:
    return {name: f"features.model.{path}" for name, path in paths.items()}

"""The head by which a student predicts: its file, stored with the student's weights, and the network of both."""

from pathlib import Path

from torch import nn

from kdhelpers import artifacts
from kdhelpers.methods import METHODS
from kdhelpers.models import HeadedNetwork
from kdhelpers.nearest import check_known
from kdhelpers.weights.third_party import load_state


def head_path(weights: Path) -> Path:
    """<name>.head of <name>.pth."""
    return weights.with_suffix(".head")


def with_head(network: nn.Module, weights: Path, description: dict) -> HeadedNetwork:
    """The network of these weights with the head that their sidecar describes.

    Raises FileNotFoundError without the head's file; ValueError for a file of other content and an unknown method.
    """
    path, method = head_path(weights), (description.get("run") or {}).get("method")
    remedy = "restore it, or load the student without it: load_model(..., head=False)"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is missing, and the student predicts by this head; {remedy}")
    if artifacts.sha256(path) != description["head"].get("sha256"):
        raise ValueError(f"{path}: its content is not what {weights.with_suffix('.json').name} describes; {remedy}")
    check_known("method", method, METHODS)
    with artifacts.reading(path, remedy):
        return HeadedNetwork(network, METHODS[method].load_head(load_state(path)))

"""Projection heads: from a network's embedding to the space in which embeddings are compared."""

import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.methods.parts.tensors import full_precision


class UnitProjection(nn.Module):
    """Linear, then unit length: [B, width] -> [B, dim], float32 or wider."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        self.linear = nn.Linear(width, dim)

    def forward(self, embedding: Tensor) -> Tensor:
        return F.normalize(full_precision(self.linear(embedding)), dim=1)


class ProjectionHead(nn.Module):
    """Linear, ReLU, linear, then unit length: [B, width] -> [B, dim], float32 or wider (Khosla et al. 2020)."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim))

    def forward(self, embedding: Tensor) -> Tensor:
        return F.normalize(full_precision(self.layers(embedding)), dim=1)


def mlp_head(width: int, hidden: int, dim: int) -> nn.Sequential:
    """Linear, BatchNorm, ReLU, linear: [B, width] -> [B, dim]; in training B is 2 or more (Fu et al. 2023)."""
    layers = nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim)
    return nn.Sequential(*layers)

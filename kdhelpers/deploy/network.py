"""A stored network as it is deployed: with the normalisation inside, on plain images."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdhelpers import artifacts
from kdhelpers.data import Data, Split, few_in_rehearsal, load_data
from kdhelpers.models import fold_batchnorm
from kdhelpers.weights.head import head_path
from kdhelpers.weights.load import Weights, find_weights, load_model

HIGHEST = {"uint8": 255.0, "float": 1.0}  # pixels -> the value of white
SEED = 0  # of the images that are drawn


class Deployable(nn.Module):
    """images [N, 3, H, W], RGB -> logits [N, C]; uint8, or float32 in 0..1.

    Each BatchNorm is folded into its convolution. The normalisation is one product and one difference.
    """

    def __init__(self, network: nn.Module, mean: list[float], std: list[float], pixels: str = "uint8"):
        super().__init__()
        self.network = fold_batchnorm(network).requires_grad_(False)
        deviation = torch.tensor(std).view(3, 1, 1)
        self.register_buffer("scale", 1 / (deviation * HIGHEST[pixels]))
        self.register_buffer("shift", torch.tensor(mean).view(3, 1, 1) / deviation)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.float() * self.scale - self.shift)


@dataclass(frozen=True)
class Source:
    """Stored weights, their network on the CPU, and their description."""

    weights: Weights
    network: nn.Module
    facts: dict[str, Any]
    record: dict[str, Any]  # of the training; {} if it is not stored here

    @property
    def name(self) -> str:
        return self.weights.path.stem

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 of the weights and, if the network predicts by one, of the head."""
        head = self.facts.get("head")
        return {"weights_sha256": self.weights.sha256} | ({"head_sha256": head["sha256"]} if head else {})

    @property
    def files(self) -> list[Path]:
        """Weights, description and head."""
        path = self.weights.path
        return [path, path.with_suffix(".json"), head_path(path)]

    def deployable(self, pixels: str = "uint8") -> Deployable:
        return Deployable(self.network, self.facts["mean"], self.facts["std"], pixels)

    def load_data(self) -> Data:
        """The data set of the training, with the same split."""
        run = self.facts["run"]
        split = {name: run[name] for name in ("val_fraction", "split_seed") if run.get(name) is not None}
        return load_data(run["dataset"], self.facts["image_size"], **split, unlabelled=run.get("unlabelled"))

    def normalised(self, data: Data) -> Data:
        """The data with the mean and the std that the weights were trained with."""
        return replace(data, mean=tuple(self.facts["mean"]), std=tuple(self.facts["std"]))


def load_source(name: str) -> Source:
    """Raises as `find_weights` and `load_model` do, and ValueError for a damaged record and for weights without a
    complete description."""
    weights = find_weights(name)
    needed = ("run", "num_classes", "class_names", "image_size", "mean", "std")
    if missing := [field for field in needed if weights.description.get(field) is None]:
        fault = f"its description lacks {', '.join(missing)}" if weights.description else "has no description"
        raise ValueError(
            f"weights = {name}: {fault}; `python -m kdhelpers teachers --file {weights.path} --model ARCHITECTURE "
            "--dataset NAME` registers weights with one"
        )
    record = artifacts.load_record(weights.path.stem) or {}
    return Source(weights, load_model(weights), weights.description, record)


def draw(split: Split, count: int) -> Split:
    """`count` images of a split, drawn by SEED, in their order; all if there are not more, and few in a rehearsal."""
    split, _ = few_in_rehearsal(split)
    if count >= len(split):
        return split
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(SEED))[:count]
    return split.select(chosen.sort().values)


def pixels_of(images: Tensor, pixels: str) -> Tensor:
    """uint8 images as the input of a network that takes these pixels."""
    return images if pixels == "uint8" else images.float() / 255

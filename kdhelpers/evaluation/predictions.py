"""One pass of a network over a split: `infer` gives `Predictions`, which every metric and analysis is a function of."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdhelpers.data import Data, Split, evaluation_batches
from kdhelpers.device import autocast
from kdhelpers.models import FeatureExtractor


@dataclass(frozen=True)
class Predictions:
    """What a network says of a split, float32 on the CPU: logits [N, C], embeddings [N, d], labels [N], index [N]."""

    logits: Tensor
    embeddings: Tensor
    labels: Tensor
    index: Tensor

    @property
    def correct(self) -> Tensor:
        """bool [N]."""
        return self.logits.argmax(1) == self.labels


@torch.no_grad()
def infer(
    model: nn.Module, data: Data, split: str | Split = "test", batch_size: int = 500, precision: str = "fp32"
) -> Predictions:
    """Run `model`, in eval mode on the device it is on, over a split of `data` without augmentation.

    split: "train", "val", "test", or a Split of your own, normalised with data's mean and std. precision: fp32, bf16 or
    fp16. Leaves the model in the mode (train or eval) it was in. Raises ValueError for an unknown or empty split.
    """
    images = split if isinstance(split, Split) else _split(data, split)
    device = next(model.parameters()).device
    observed = model if isinstance(model, FeatureExtractor) else FeatureExtractor(model)
    was_training, results = model.training, []
    model.eval()
    with autocast(device, precision):
        for batch in evaluation_batches(images, batch_size, data.mean, data.std, device):
            outputs = observed(batch.views[0])
            results.append((outputs.logits.float(), outputs.embedding.float(), batch.labels, batch.index))
    model.train(was_training)
    return Predictions(*(torch.cat(column).cpu() for column in zip(*results, strict=True)))


def _split(data: Data, name: str) -> Split:
    if name not in ("train", "val", "test"):
        raise ValueError(f"split = {name}: known: train, val, test")
    split = getattr(data, name)
    if len(split.labels) == 0:
        raise ValueError(f"split = {name}: {data.name} has no images there; load it with val_fraction > 0")
    return split


def require_same_images(first: Predictions, second: Predictions) -> None:
    if not torch.equal(first.index, second.index) or not torch.equal(first.labels, second.labels):
        raise ValueError("the two predictions are of different images; infer both on the same split")

"""One pass of a network over images: `infer` gives the `Predictions` from which metrics and analyses are computed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdhelpers.data import Data, Split, Unlabelled, evaluation_batches, few_in_rehearsal
from kdhelpers.device import autocast, full_fp32
from kdhelpers.models import FeatureExtractor

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Predictions:
    """A network's outputs for a split, on the CPU, float32: logits [N, C], embeddings [N, d], probabilities [N, C].

    labels, index: int64 [N]; labels are None for unlabelled images. `infer` gives probabilities; metrics do not need
    them, so a `Predictions` made by hand may leave them out.
    """

    logits: Tensor
    embeddings: Tensor
    labels: Tensor | None
    index: Tensor
    probabilities: Tensor | None = None

    @property
    def correct(self) -> Tensor:
        """bool [N]."""
        return self.logits.argmax(1) == self.labels


@torch.no_grad()
def infer(
    model: nn.Module,
    data: Data,
    split: str | Split | Unlabelled = "test",
    batch_size: int = 500,
    precision: str = "fp32",
    tta: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Predictions:
    """Run `model`, in eval mode on its device, over a split of `data` without augmentation.

    split: "train", "val", "test", or images of your own, which are normalised with data's mean and std. precision:
    fp32 (never TF32), bf16 or fp16. tta (test-time augmentation): probabilities are the mean over an image and its
    mirror image, logits the logarithm of this mean, embeddings belong to the image. progress: called after each batch
    with its number of images. The model keeps its mode (train or eval). Raises ValueError for an unknown or empty
    split.
    """
    images, places = few_in_rehearsal(_images(data, split))
    device = next(model.parameters()).device
    network = model if isinstance(model, FeatureExtractor) else FeatureExtractor(model)
    was_training, parts = model.training, []
    model.eval()
    with full_fp32(), autocast(device, precision):
        for batch in evaluation_batches(images, batch_size, data.mean, data.std, device):
            views = (batch.views[0], batch.views[0].flip(3)) if tta else batch.views
            outputs = [network(view) for view in views]
            logits = [output.logits.float() for output in outputs]
            probabilities = sum(view_logits.softmax(1) for view_logits in logits) / len(logits)
            reported = probabilities.clamp(min=TINY).log() if tta else logits[0]
            parts.append((reported, outputs[0].embedding.float(), batch.labels, batch.index, probabilities))
            if progress:
                progress(len(batch.index))
    model.train(was_training)
    logits, embeddings, labels, index, probabilities = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    labels = None if isinstance(split, Unlabelled) else labels
    return Predictions(logits, embeddings, labels, places[index], probabilities)


def _images(data: Data, split: str | Split | Unlabelled) -> Split:
    if isinstance(split, Unlabelled):
        return Split(split.images, torch.full((len(split),), -1))
    if isinstance(split, Split):
        return split
    if split not in ("train", "val", "test"):
        raise ValueError(f"split = {split}: must be train, val or test")
    images = getattr(data, split)
    if len(images) == 0:
        raise ValueError(f"split = {split}: {data.name} has no images there; load it with val_fraction > 0")
    return images


def require_same_images(first: Predictions, second: Predictions) -> None:
    """ValueError unless index and labels are equal."""
    if not torch.equal(first.index, second.index) or not torch.equal(first.labels, second.labels):
        raise ValueError("the two predictions are of different images; infer both on the same split")

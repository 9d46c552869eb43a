"""Validation during training: the accuracy and the loss on held-out images, which stay on the device if they fit."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.data import Data, Split, evaluation_batches
from kdhelpers.device import autocast, free_memory, to_device
from kdhelpers.models import FeatureExtractor

BATCH_SIZES = {"cpu": 500, "cuda": 2500}
MEMORY_SHARE = 0.25  # of the device's free memory that the images of a training may take


class Validation:
    """The validation images of `data`: moved to the device once, or, if there are too many, in every epoch."""

    def __init__(self, data: Data, device: torch.device):
        images = data.val.images
        if device.type != "cpu" and images.nbytes <= MEMORY_SHARE * free_memory(device):
            images = to_device(images, device)
        self._split = Split(images, to_device(data.val.labels, device))
        self._mean, self._std, self._device = data.mean, data.std, device
        self._batch_size = BATCH_SIZES.get(device.type, 500)

    def __len__(self) -> int:
        return len(self._split.labels)

    @torch.no_grad()
    def top1_and_loss(self, network: FeatureExtractor, precision: str) -> tuple[float, float]:
        """(top-1 accuracy in percent, mean cross-entropy in nats). The host waits for the device once."""
        was_training = network.training
        network.eval()
        sums = []
        with autocast(self._device, precision):
            for batch in evaluation_batches(self._split, self._batch_size, self._mean, self._std, self._device):
                sums.append(_hits_and_loss(network(batch.views[0]).logits, batch.labels))
        network.train(was_training)
        hits, loss = (torch.stack(sums).cpu().double().sum(0) / len(self)).tolist()
        return 100 * hits, loss


def _hits_and_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """float [2]: the number of correct predictions and the summed cross-entropy."""
    wide = logits.float() if logits.device.type == "mps" else logits.float().double()  # Apple's GPUs lack float64
    with torch.autocast(logits.device.type, enabled=False):
        loss = F.cross_entropy(wide, labels, reduction="sum")
    return torch.stack([(logits.argmax(1) == labels).sum().to(loss.dtype), loss])

"""Validation during training: the accuracy and the loss on held-out images, which stay on the device if they fit."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.data import Batches, evaluation_batches
from kdhelpers.device import autocast
from kdhelpers.models import FeatureExtractor

BATCH_SIZES = {"cpu": 500, "cuda": 2500}


@torch.no_grad()
def top1_and_loss(network: FeatureExtractor, batches: Batches, precision: str) -> tuple[float, float]:
    """(top-1 accuracy in percent, mean cross-entropy in nats) on `batches.held_out`. The host waits once.

    The network is in eval mode meanwhile.
    """
    split, data, device = batches.held_out, batches.data, batches.device
    was_training, sums = network.training, []
    network.eval()
    with autocast(device, precision):
        for batch in evaluation_batches(split, BATCH_SIZES.get(device.type, 500), data.mean, data.std, device):
            sums.append(_hits_and_loss(network(batch.views[0]).logits, batch.labels))
    network.train(was_training)
    hits, loss = (torch.stack(sums).cpu().double().sum(0) / len(split)).tolist()
    return 100 * hits, loss


def _hits_and_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """float [2]: the number of correct predictions and the summed cross-entropy."""
    wide = logits.float() if logits.device.type == "mps" else logits.float().double()  # Apple's GPUs lack float64
    with torch.autocast(logits.device.type, enabled=False):
        loss = F.cross_entropy(wide, labels, reduction="sum")
    return torch.stack([(logits.argmax(1) == labels).sum().to(loss.dtype), loss])

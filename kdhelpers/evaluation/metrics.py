"""Metrics: functions of `Predictions`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.evaluation.predictions import Predictions, require_same_images

CALIBRATION_BINS = 15


def top_k_pct(predictions: Predictions, k: int = 1) -> float:
    """Percentage of images whose label is among the k largest logits; k is at most the number of classes."""
    k = min(k, predictions.logits.shape[1])
    hits = (predictions.logits.topk(k, 1).indices == predictions.labels[:, None]).any(1)
    return 100 * hits.double().mean().item()


def negative_log_likelihood(predictions: Predictions) -> float:
    """Mean cross-entropy in nats."""
    return F.cross_entropy(predictions.logits.double(), predictions.labels).item()


def calibration(predictions: Predictions, bins: int = CALIBRATION_BINS) -> Tensor:
    """float64 [bins, 3]: share of images, mean confidence and accuracy in each bin of equal width in confidence."""
    confidence = predictions.logits.double().softmax(1).amax(1)
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    columns = torch.stack([torch.ones_like(confidence), confidence, predictions.correct.double()], 1)
    sums = torch.zeros(bins, 3, dtype=torch.float64).index_add_(0, bin_of, columns)
    return torch.cat([sums[:, :1] / len(confidence), sums[:, 1:] / sums[:, :1].clamp(min=1)], 1)


def calibration_error_pct(predictions: Predictions, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error in percent: sum over bins of share |accuracy - confidence| (Guo et al., ICML 2017)."""
    share, confidence, accuracy = calibration(predictions, bins).unbind(1)
    return 100 * (share * (accuracy - confidence).abs()).sum().item()


def per_class_pct(predictions: Predictions) -> Tensor:
    """float64 [C]: accuracy of each class in percent, NaN for a class without images."""
    classes = predictions.logits.shape[1]
    count = torch.bincount(predictions.labels, minlength=classes).double()
    return 100 * torch.bincount(predictions.labels[predictions.correct], minlength=classes).double() / count


def evaluate(predictions: Predictions) -> dict[str, float]:
    """The headline metrics: top1_pct, top5_pct, nll (nats), ece_pct (15 bins), n."""
    return {
        "top1_pct": top_k_pct(predictions, 1),
        "top5_pct": top_k_pct(predictions, 5),
        "nll": negative_log_likelihood(predictions),
        "ece_pct": calibration_error_pct(predictions),
        "n": len(predictions.labels),
    }


def compare(first: Predictions, second: Predictions, resamples: int = 10_000, seed: int = 0) -> dict[str, float]:
    """Paired comparison on the same images: top-1 of first minus second, with a 95 % bootstrap interval over images.

    Returns first_pct, second_pct, difference_pct, low_pct, high_pct, agreement_pct (same predicted class) and n. The
    interval is over images for these two networks, not over training seeds. Raises ValueError for different images.
    """
    require_same_images(first, second)
    difference = first.correct.double() - second.correct.double()
    n, generator = len(difference), torch.Generator().manual_seed(seed)
    # A resample depends on its numbers of wins and losses only: two binomials replace n draws.
    win, loss = (difference > 0).double().mean(), (difference < 0).double().mean()
    wins = torch.binomial(torch.full((resamples,), float(n), dtype=torch.float64), win.expand(resamples), generator)
    loss_share = (loss / (1 - win)).nan_to_num().clamp(0, 1)
    losses = torch.binomial(n - wins, loss_share.expand(resamples), generator)
    low, high = torch.quantile((wins - losses) / n, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {
        "first_pct": 100 * first.correct.double().mean().item(),
        "second_pct": 100 * second.correct.double().mean().item(),
        "difference_pct": 100 * difference.mean().item(),
        "low_pct": 100 * low,
        "high_pct": 100 * high,
        "agreement_pct": 100 * (first.logits.argmax(1) == second.logits.argmax(1)).double().mean().item(),
        "n": n,
    }

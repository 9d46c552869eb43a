"""Linear probe: the classifier of a network, fitted to its frozen embeddings."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdhelpers.data import Data
from kdhelpers.device import pick_device
from kdhelpers.evaluation.predictions import Predictions, infer

WEIGHT_DECAYS = (1e-2, 1e-3, 1e-4, 1e-5)  # strongest first; each fit starts from the previous one
ITERATIONS = 60


def fit_probe(network: nn.Module, data: Data) -> dict[str, float]:
    """Fit the network's own classifier, in place, on the embeddings of the training images without augmentation.

    Softmax regression on standardised embeddings by full-batch L-BFGS. The weight decay is the best of WEIGHT_DECAYS on
    the validation images, or 1e-4 without any. Returns weight_decay, train_top1_pct and, with validation images,
    val_top1_pct. Raises ValueError for a classifier that is not an nn.Linear.
    """
    classifier = network.get_submodule(network.return_nodes.classifier)
    if not isinstance(classifier, nn.Linear):
        raise ValueError(f"network: its classifier is {type(classifier).__name__}, not Linear")
    train = infer(network, data, "train")
    held_out = infer(network, data, "val") if len(data.val) else None
    weight, bias, facts = choose_probe(train, held_out, classifier.out_features, classifier.weight.device)
    with torch.no_grad():
        classifier.weight.copy_(weight)
        if classifier.bias is not None:
            classifier.bias.copy_(bias)
    return facts


def probe_accuracy_pct(train: Predictions, test: Predictions) -> float:
    """Test accuracy in percent of `probe_predictions`."""
    return 100 * probe_predictions(train, test).correct.double().mean().item()


def probe_predictions(train: Predictions, test: Predictions) -> Predictions:
    """`test` with the logits of a probe fitted to the training embeddings with weight decay 1e-4."""
    weight, bias, _ = choose_probe(train, None, train.logits.shape[1])
    return replace(test, logits=test.embeddings @ weight.T + bias, probabilities=None)


def choose_probe(
    train: Predictions, held_out: Predictions | None, classes: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor, dict]:
    """(weight [C, d], bias [C], facts) of the best probe, for embeddings without standardisation; see `fit_probe`.

    Fitted on `device`, or without one on the GPU if there is one; weight and bias are on the CPU.
    """
    device = pick_device(device)
    train, held_out = _on(device, train), held_out and _on(device, held_out)
    mean, std = train.embeddings.mean(0), train.embeddings.std(0)
    std = std.clamp(min=(1e-3 * std.median()).clamp(min=1e-6))  # keeps an almost constant unit from being amplified
    features = (train.embeddings - mean) / std
    best, weight, bias = None, features.new_zeros(classes, features.shape[1]), features.new_zeros(classes)
    for decay in WEIGHT_DECAYS if held_out else (1e-4,):
        weight, bias = softmax_regression(features, train.labels, weight, bias, decay)
        plain = weight / std, bias - (weight / std) @ mean
        facts = {"weight_decay": decay, "train_top1_pct": _accuracy_pct(train, *plain)}
        if held_out:
            facts["val_top1_pct"] = _accuracy_pct(held_out, *plain)
        if best is None or facts["val_top1_pct"] > best[2]["val_top1_pct"]:
            best = *(value.cpu() for value in plain), facts
    return best


def _on(device: torch.device, predictions: Predictions) -> Predictions:
    moved = {"embeddings": predictions.embeddings.to(device), "labels": predictions.labels.to(device)}
    return replace(predictions, **moved)


def softmax_regression(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, weight_decay: float, iterations: int = ITERATIONS
) -> tuple[Tensor, Tensor]:
    """The minimum of mean CE + weight_decay/2 ||weight||^2 from the given start: (weight [C, d], bias [C])."""
    weight, bias = (value.detach().clone().requires_grad_() for value in (weight, bias))
    solver = torch.optim.LBFGS([weight, bias], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, labels) + weight_decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return weight.detach(), bias.detach()


def _accuracy_pct(predictions: Predictions, weight: Tensor, bias: Tensor) -> float:
    logits = predictions.embeddings @ weight.T + bias
    return 100 * ((logits.argmax(1) == predictions.labels).sum().item() / len(logits))

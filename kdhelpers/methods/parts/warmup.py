"""The warm-up of a loss term: a large term would dominate an untrained student."""


def warmup(epoch: int, warmup_epochs: float) -> float:
    """min(epoch / warmup_epochs, 1), with epochs from 1; with warmup_epochs 0 it is 1."""
    return min(epoch / warmup_epochs, 1.0) if warmup_epochs else 1.0

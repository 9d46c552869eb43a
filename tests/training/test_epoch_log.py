"""The loss terms of an epoch over several processes, without them."""

import pytest
import torch

from kdhelpers.training.epoch_log import EpochLog


@pytest.fixture
def log():
    """A function that makes the log of two steps."""

    def make(*losses):
        log = EpochLog(len(losses))
        for loss in losses:
            log.add({"ce": torch.tensor(loss)}, torch.tensor(1))
            log.sizes.append(2)
        return log

    return make


def reduced(log, monkeypatch, other):
    """Let another process add its totals: of the term, hits, bad values, images. What this process has given."""
    given = []

    def reduce(totals):
        given.append(totals.tolist())
        return totals + torch.tensor(other, dtype=torch.float64)

    monkeypatch.setattr(log, "_over_ranks", reduce)
    return given


def test_means_are_over_the_images_of_all_processes(log, monkeypatch):
    mine = log(1.0, 3.0)
    reduced(mine, monkeypatch, (16.0, 0.0, 0.0, 4.0))
    assert mine.read(1, "") == {"loss": 3.0, "ce": 3.0, "train_top1_pct": 25.0}


def test_a_bad_loss_of_another_process_ends_this_one_too(log, monkeypatch):
    mine = log(1.0, 3.0)
    reduced(mine, monkeypatch, (float("nan"), 0.0, 1.0, 4.0))
    with pytest.raises(FloatingPointError, match="epoch 2: a loss term of another process is not finite; lower lr"):
        mine.read(2, "lower lr")


def test_a_process_with_a_bad_loss_gives_its_totals_before_it_ends(log, monkeypatch):
    mine = log(1.0, float("inf"))
    given = reduced(mine, monkeypatch, (2.0, 0.0, 0.0, 4.0))
    with pytest.raises(FloatingPointError, match="epoch 2, step 2: loss term ce is inf; lower lr"):
        mine.read(2, "lower lr")
    assert given == [[float("inf"), 200.0, 1.0, 4.0]]

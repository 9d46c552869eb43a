"""The memory bank's draws: never of the own class, each other image equally likely, with unequal classes."""

import pytest
import torch
from device_checks import DeviceCheck

from kdhelpers.methods.parts.memory_bank import MemoryBank

UNEQUAL = torch.tensor([2] * 3 + [0] * 40 + [1] * 7 + [3])[
    torch.randperm(51, generator=torch.Generator().manual_seed(0))
]


def bank(labels=UNEQUAL, negatives=8, classes=4):
    torch.manual_seed(0)
    return MemoryBank(labels, classes, 6, negatives)


def test_rows_begin_within_the_published_bound():
    rows = torch.cat([bank().student, bank().teacher])
    assert 0.9 * (6 / 3) ** -0.5 < rows.abs().max() <= (6 / 3) ** -0.5


@pytest.mark.parametrize("negatives", [1, 8, 11])
def test_negatives_are_of_other_classes_and_none_is_drawn_twice(negatives):
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    for _ in range(50):
        drawn = bank(negatives=negatives).other_classes(labels)
        assert drawn.shape == (6, negatives)
        assert (UNEQUAL[drawn] != labels[:, None]).all()
        assert all(len(set(row)) == negatives for row in drawn.tolist())


def test_more_negatives_than_there_are_become_all_there_are():
    store = bank(negatives=16384)
    assert store.negatives == 11  # class 0 has 40 of the 51 images
    drawn = store.other_classes(torch.tensor([0, 0]))
    assert all(sorted(row) == (UNEQUAL != 0).nonzero().ravel().tolist() for row in drawn.tolist())


def test_every_other_image_is_equally_likely():
    torch.manual_seed(1)
    store, labels, draws = bank(), torch.tensor([1] * 64), 400
    counts = sum(torch.bincount(store.other_classes(labels).ravel(), minlength=51) for _ in range(draws))
    others = counts[UNEQUAL != 1].double()
    assert counts[UNEQUAL == 1].sum() == 0
    expected = draws * 64 * 8 / 44
    # the images of one batch read one shuffle, so counts spread more than those of independent draws
    assert (others / expected - 1).abs().max() < 0.15
    assert others.mean() == pytest.approx(expected)


def test_images_of_one_batch_start_at_places_of_their_own():
    drawn = bank().other_classes(torch.tensor([0, 0, 0, 0, 0]))
    assert len({tuple(row) for row in drawn.tolist()}) > 1


def test_a_class_without_images_is_no_obstacle():
    drawn = bank(classes=9).other_classes(torch.tensor([3]))
    assert (UNEQUAL[drawn] != 3).all()


def test_only_the_banks_are_in_a_checkpoint():
    assert set(bank().state_dict()) == {"student", "teacher"}


def test_draws_stay_within_the_32_bits_of_apples_gpu():
    store, labels = bank().to("meta"), torch.tensor([0, 1, 2]).to("meta")
    with DeviceCheck("meta"):
        assert store.other_classes(labels).shape == (3, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_for_the_gpu():
    store, labels = bank().cuda(), torch.tensor([0, 1, 2], device="cuda")
    embedding = torch.nn.functional.normalize(torch.randn(3, 6, device="cuda"), dim=1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        store.other_classes(labels)
        store.update(labels, embedding, embedding, 0.5)
    finally:
        torch.cuda.set_sync_debug_mode("default")

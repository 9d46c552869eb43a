from kdhelpers.methods.parts.warmup import warmup


def test_it_rises_from_the_first_epoch_to_one_and_stays():
    assert [warmup(epoch, 20) for epoch in (1, 10, 20, 21, 240)] == [0.05, 0.5, 1, 1, 1]
    assert [warmup(epoch, 1.5) for epoch in (1, 2)] == [1 / 1.5, 1]


def test_without_epochs_the_weight_is_whole_from_the_start():
    assert [warmup(epoch, 0) for epoch in (1, 2)] == [1, 1]

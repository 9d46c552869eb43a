"""Weak views, and unlabelled images next to labelled ones: functions of seed and epoch, repeated, without labels."""

import pytest
import torch

from kdhelpers.data import Split, Unlabelled, augment, parse_recipe, plan_epoch, plan_recycled
from tests.data import test_batches

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
STRONG = ["crop flip rotation jitter cutout", "resized_crop flip jitter", "crop", "none"]


def noise(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def split():
    return Split(noise(70, 0), torch.arange(70) % 7)


@pytest.fixture(scope="module")
def others():
    return noise(25, 1)


def batches(split, recipe="crop flip jitter", size=16, unlabelled=None, unlabelled_batch_size=None, **options):
    if unlabelled is not None:
        options |= {"unlabelled": unlabelled, "unlabelled_batch_size": unlabelled_batch_size or size}
    return test_batches.batches(split, recipe, size, **options)


def equal(one, two):
    return all(torch.equal(mine, other) for mine, other in zip(one, two, strict=True))


@pytest.mark.parametrize("recipe", STRONG)
@pytest.mark.parametrize("weak_view", ["shared_crop", "own_crop"])
@pytest.mark.parametrize("budget", [None, 0])
def test_a_weak_view_is_crop_and_flip_alone(split, others, recipe, weak_view, budget):
    loader = batches(
        split, recipe, views=2, weak_view=weak_view, unlabelled=others, memory_budget_mib=budget, workers=0, seed=3
    )
    for batch in loader.epoch(2):
        for images, seen in ((split.images, batch), (others, batch.unlabelled)):
            view = 0 if weak_view == "shared_crop" else 2
            draws = {step: values[view] for step, values in seen.draws.items()}
            expected = augment(images[seen.index], draws, parse_recipe(recipe).weak, MEAN, STD)
            assert torch.equal(seen.weak_view, expected)
            for number, shown in enumerate(seen.views):
                own = {step: values[number] for step, values in seen.draws.items()}
                assert torch.equal(shown, augment(images[seen.index], own, parse_recipe(recipe), MEAN, STD))


def test_a_crop_of_its_own_is_independent_of_the_first_views(split):
    [batch] = batches(split, "crop", size=70, weak_view="own_crop").epoch(1)
    assert (batch.draws["crop"][0] == batch.draws["crop"][1]).all(1).float().mean() < 0.1
    [batch] = batches(split, "crop", size=70, weak_view="shared_crop").epoch(1)
    assert batch.weak_view is batch.views[0]  # nothing is computed twice


def test_labelled_batches_are_the_same_whatever_stands_beside_them(split, others):
    plain = list(batches(split, seed=4).epoch(3))
    for options in ({"weak_view": "shared_crop"}, {"weak_view": "own_crop"}, {"unlabelled": others}):
        for one, two in zip(plain, batches(split, seed=4, **options).epoch(3), strict=True):
            assert equal((*one.views, one.labels, one.index), (*two.views, two.labels, two.index))
    assert plain[0].weak_view is plain[0].unlabelled is None


@pytest.mark.parametrize("weak_view", ["", "shared_crop", "own_crop"])
def test_an_unlabelled_batch_carries_no_labels(split, others, weak_view):
    for batch in batches(split, unlabelled=others, weak_view=weak_view).epoch(1):
        assert batch.labels is not None
        assert batch.unlabelled.labels is None
        assert batch.unlabelled.unlabelled is None
    assert not hasattr(Unlabelled(others, [], ""), "labels")  # where the unlabelled images come from


@pytest.mark.parametrize("size", [7, 16, 60])
def test_unlabelled_images_are_recycled_pass_after_pass_over_the_epochs(split, others, size):
    loader = batches(split, unlabelled=others, unlabelled_batch_size=size)
    seen = torch.cat([batch.unlabelled.index for epoch in range(1, 6) for batch in loader.epoch(epoch)])
    assert len(seen) == 5 * 5 * size  # five steps an epoch, the last labelled batch being shorter
    passes = [part for part in seen.split(25) if len(part) == 25]
    assert len(passes) >= 7
    assert all(part.sort().values.equal(torch.arange(25)) for part in passes)
    assert len({tuple(part.tolist()) for part in passes}) == len(passes)


def test_an_epoch_does_not_depend_on_those_before_and_repeated_images_are_drawn_anew(split, others):
    loader = batches(split, unlabelled=others, unlabelled_batch_size=60)
    list(loader.epoch(1))
    for one, two in zip(
        loader.epoch(4), batches(split, unlabelled=others, unlabelled_batch_size=60).epoch(4), strict=True
    ):
        assert equal((*one.unlabelled.views, one.unlabelled.index), (*two.unlabelled.views, two.unlabelled.index))
    jitters = torch.cat([batch.unlabelled.draws["jitter"][0] for batch in loader.epoch(4)])
    assert len(jitters.unique(dim=0)) == 5 * 60


@pytest.mark.parametrize("recipe", STRONG)
def test_streamed_unlabelled_images_are_the_resident_ones(split, others, recipe):
    kinds = ({}, {"memory_budget_mib": 0, "workers": 1})
    resident, streamed = (batches(split, recipe, unlabelled=others, weak_view="shared_crop", **kind) for kind in kinds)
    assert resident.resident
    assert not streamed.resident
    for one, two in zip(resident.epoch(2), streamed.epoch(2), strict=True):
        mine, other = one.unlabelled, two.unlabelled
        assert equal((*mine.views, mine.index, mine.weak_view), (*other.views, other.index, other.weak_view))


@pytest.mark.parametrize("recipe", STRONG)
@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("weak_view", ["", "shared_crop", "own_crop"])
def test_blocks_of_several_steps_hold_the_same_batches(split, others, recipe, budget, weak_view):
    options = {"unlabelled": others, "unlabelled_batch_size": 24, "weak_view": weak_view, "views": 2}
    single, blocks = (
        batches(split, recipe, **options, memory_budget_mib=budget, workers=0, block_steps=steps) for steps in (1, 3)
    )
    made = list(blocks.epoch(2))
    for one, two in zip(single.epoch(2), made, strict=True):
        assert equal(one.tensors, two.tensors)
        for mine, whole in ((two, two.block), (two.unlabelled, two.unlabelled.block)):
            assert equal(mine._replace(unlabelled=None).tensors, [own[mine.span] for own in whole.tensors])
            ids = () if mine.view_ids is None else mine.view_ids
            for view, numbers in zip(mine.views if not weak_view else (mine.weak_view,), ids, strict=False):
                source, source_numbers, span = two.in_block(view)
                assert torch.equal(source[span], view)
                assert torch.equal(source_numbers[span], numbers)
    assert len({id(batch.block) for batch in made}) == 2  # 5 steps in blocks of 3
    assert made[0].in_block(made[0].views[0].clone()) is None


def test_the_next_epoch_is_planned_while_one_runs(split, others):
    """Made ahead or not, in whatever order epochs are read, an epoch is the same."""
    loader, fresh = (batches(split, unlabelled=others) for _ in range(2))
    for epoch in (1, 2, 2, 7, 3):
        for one, two in zip(loader.epoch(epoch), batches(split, unlabelled=others).epoch(epoch), strict=True):
            assert equal(one.tensors, two.tensors)
    next(fresh.epoch(4))
    number, plans = fresh._planned
    assert (number, len(plans.result())) == (5, 2)


def test_both_kinds_of_image_share_the_memory_budget(split, others):
    alone = batches(split)._streams[0].pixels.resident_mib
    both = alone + batches(Split(others, torch.zeros(len(others), dtype=torch.int64)))._streams[0].pixels.resident_mib
    for budget, fits in ((both, True), (0.999 * both, False)):
        loader = batches(split, unlabelled=others, memory_budget_mib=budget, workers=0)
        assert loader.resident
        assert loader._streams[1].pixels.resident == fits


def test_ranks_part_the_unlabelled_images_of_each_step(split, others):
    world = [
        list(batches(split, unlabelled=others, unlabelled_batch_size=6, rank=rank, world=2).epoch(2)) for rank in (0, 1)
    ]
    whole = list(batches(split, unlabelled=others, unlabelled_batch_size=6).epoch(2))
    for step, batch in enumerate(whole):
        for rank in (0, 1):
            assert torch.equal(world[rank][step].unlabelled.index, batch.unlabelled.index[rank::2])
            assert torch.equal(world[rank][step].unlabelled.views[0], batch.unlabelled.views[0][rank::2])
    with pytest.raises(
        ValueError, match="unlabelled_batch_size = 5: 2 processes cannot share it equally; take a multiple"
    ):
        batches(split, unlabelled=others, unlabelled_batch_size=5, world=2)


def test_a_recycled_plan_goes_on_where_the_epoch_before_ended():
    recipe = parse_recipe("crop")
    epochs = [plan_recycled(recipe, 10, 7, 16, 1, 0, epoch).order for epoch in range(1, 11)]
    whole = torch.cat(epochs)
    assert all(torch.equal(part.sort().values, torch.arange(10)) for part in whole.split(10))
    beside = plan_recycled(recipe, 10, 10, 16, 1, 0, 1).draws["crop"]
    assert not torch.equal(beside, plan_epoch(recipe, 10, 16, 1, 0, 1).draws["crop"])
    long = plan_recycled(recipe, 10, 70, 16, 1, 0, 1).order
    assert torch.equal(long, whole)
    assert not torch.equal(long, plan_recycled(recipe, 10, 70, 16, 1, 1, 1).order)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("budget", [None, 0])
def test_no_host_synchronisation_beside_unlabelled_images_on_a_gpu(split, others, budget):
    loader = batches(split, weak_view="shared_crop", unlabelled=others, device="cuda", memory_budget_mib=budget)
    list(loader.epoch(1))  # pinned memory and kernels are set up once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(loader.epoch(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")

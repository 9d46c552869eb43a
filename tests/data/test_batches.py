"""Batches: resident equals streamed, whatever the batch size; ranks part the global batch; nothing waits."""

import threading
from dataclasses import replace

import pytest
import torch
from device_checks import DeviceCheck

from kdhelpers.data import (
    Batches,
    BatchSpec,
    Data,
    Split,
    Unlabelled,
    augment,
    evaluation_batches,
    parse_recipe,
    plan_epoch,
)
from kdhelpers.data.augmentation import geometry, randaugment
from kdhelpers.data.augmentation import recipe as steps
from kdhelpers.data.batches import AugmentedViews

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
RECIPES = [
    "none",
    "crop flip",
    "crop flip rotation jitter cutout",
    "resized_crop flip",
    "crop flip randaugment rotation jitter cutout",
]


@pytest.fixture(scope="module")
def split():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (70, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(70) % 7)


def batches(split, recipe="crop flip", size=16, device="cpu", unlabelled=None, **options):
    """Keywords are fields of the spec or arguments of Batches."""
    data = Data("noise", split, split, split, list("abcdefg"), None, None, MEAN, STD)
    if unlabelled is not None:
        data = replace(data, unlabelled=Unlabelled(unlabelled, [str(id) for id in range(len(unlabelled))], "noise"))
    fields = {name: options.pop(name) for name in BatchSpec.__dataclass_fields__ if name in options}
    return Batches(data, BatchSpec(parse_recipe(recipe), size, **fields), device, **options)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("workers", [0, 2])
def test_resident_and_streamed_batches_are_equal_bit_for_bit(split, recipe, workers):
    resident = batches(split, recipe, views=2, seed=3)
    streamed = batches(split, recipe, views=2, seed=3, memory_budget_mib=0, workers=workers)
    assert resident.resident
    assert not streamed.resident
    for epoch in (0, 1):
        for one, two in zip(resident.epoch(epoch), streamed.epoch(epoch), strict=True):
            assert torch.equal(one.labels, two.labels)
            assert torch.equal(one.index, two.index)
            assert all(torch.equal(mine, other) for mine, other in zip(one.views, two.views, strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_view_is_the_plan_applied_to_its_sample(split, recipe):
    plan = plan_epoch(parse_recipe(recipe), 70, 16, 2, seed=5, epoch=9)
    seen = []
    for batch in batches(split, recipe, views=2, seed=5).epoch(9):
        seen += batch.index.tolist()
        assert torch.equal(batch.labels, split.labels[batch.index])
        for number, view in enumerate(batch.views):
            draws = {step: values[number, batch.index] for step, values in plan.draws.items()}
            expected = augment(split.images[batch.index], draws, parse_recipe(recipe), MEAN, STD)
            assert torch.equal(view, expected)
            assert view.is_contiguous(memory_format=torch.channels_last)
            assert all(torch.equal(batch.draws[step][number], draws[step]) for step in draws)
    assert seen == plan.order.tolist()


def test_samples_look_the_same_in_any_batch_size_and_after_any_epochs(split):
    def by_sample(loader, epoch):
        return {
            int(i): image for batch in loader.epoch(epoch) for i, image in zip(batch.index, *batch.views, strict=True)
        }

    small, large = batches(split, size=7), batches(split, size=70)
    list(small.epoch(0))
    one, two = by_sample(small, 4), by_sample(large, 4)
    assert list(one) == list(two)
    assert all(torch.equal(one[sample], two[sample]) for sample in one)


def test_the_next_epoch_is_planned_by_a_thread_during_the_first_step(split, monkeypatch):
    planned = []
    original = AugmentedViews.plan

    def plan(views, number, size):
        planned.append((number, threading.current_thread() is threading.main_thread()))
        return original(views, number, size)

    monkeypatch.setattr(AugmentedViews, "plan", plan)
    loader = batches(split)
    for number in (1, 2):
        next(iter(epoch := loader.epoch(number)))
        loader._planned[1].result()
        list(epoch)
    assert planned == [(1, True), (2, False), (3, False)]


def test_an_epoch_left_in_the_middle_does_not_disturb_the_next(split):
    streamed = batches(split, memory_budget_mib=0, workers=1)
    next(streamed.epoch(0))
    found = torch.cat([batch.index for batch in streamed.epoch(1)])
    assert torch.equal(found, torch.cat([batch.index for batch in batches(split).epoch(1)]))


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (70, 16, [16, 16, 16, 16, 6]),
        (65, 16, [16] * 4),
        (64, 16, [16] * 4),
        (66, 16, [16] * 4 + [2]),
        (5, 16, [5]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_the_last_batch_is_kept_unless_it_holds_one_image(split, count, size, sizes):
    loader = batches(Split(split.images[:count], split.labels[:count]), size=size)
    assert [len(batch.labels) for batch in loader.epoch(0)] == sizes
    assert len(loader) == len(sizes)


@pytest.mark.parametrize("count", [70, 67, 65])
def test_ranks_part_each_global_batch_and_take_the_same_number_of_steps(split, count):
    part = Split(split.images[:count], split.labels[:count])
    world = [list(batches(part, size=15, rank=rank, world=3).epoch(2)) for rank in range(3)]
    whole = list(batches(part, size=15).epoch(2))
    steps = 5 if count > 65 else 4  # 5 images and fewer would leave a rank with less than two
    assert [len(rank) for rank in world] == [steps] * 3
    for step in range(steps):
        for rank in range(3):
            share = slice(rank, len(whole[step].index) // 3 * 3, 3)  # equal shares; 67 = 4 * 15 + 7 leaves one image
            assert torch.equal(world[rank][step].index, whole[step].index[share])
            assert torch.equal(world[rank][step].views[0], whole[step].views[0][share])


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_number_of_threads_is_the_callers_between_batches(split, recipe):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in batches(split, recipe).epoch(0):
            assert torch.get_num_threads() == 2
        for _ in evaluation_batches(split, 32, MEAN, STD):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_bfloat16_is_the_rounded_float32(split):
    for one, two in zip(batches(split).epoch(0), batches(split, dtype=torch.bfloat16).epoch(0), strict=True):
        assert torch.equal(one.views[0].bfloat16(), two.views[0])


def test_the_budget_counts_the_padded_and_mirrored_copy(split):
    needed = 2 * 70 * 3 * 24 * 24 / 2**20
    assert batches(split, memory_budget_mib=needed).resident
    assert not batches(split, memory_budget_mib=needed * 0.999, workers=0).resident


def test_too_small_a_split_or_batch_is_refused(split):
    with pytest.raises(ValueError, match="too few to train on"):
        batches(Split(split.images[:1], split.labels[:1]))
    with pytest.raises(ValueError, match="too few to train on"):
        batches(Split(split.images[:0], split.labels[:0]))
    with pytest.raises(ValueError, match="batch_size = 2: 4 processes cannot share it equally; take a multiple"):
        batches(split, size=2, world=4)


def test_evaluation_shows_every_image_once_in_order_and_plain(split):
    found = list(evaluation_batches(split, 32, MEAN, STD))
    assert [len(batch.labels) for batch in found] == [32, 32, 6]
    assert torch.equal(torch.cat([batch.index for batch in found]), torch.arange(70))
    assert torch.equal(torch.cat([batch.labels for batch in found]), split.labels)
    expected = (split.images.double() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(torch.cat([batch.views[0] for batch in found]).double(), expected, rtol=0, atol=3e-6)
    assert list(evaluation_batches(Split(split.images[:0], split.labels[:0]), 32, MEAN, STD)) == []


@pytest.mark.parametrize(("recipe", "budget"), [*((recipe, None) for recipe in RECIPES), ("crop flip", 0)])
def test_an_epoch_asks_no_device_what_it_lacks_or_waits_for(split, recipe, budget):
    few = Split(split.images[:10], split.labels[:10])
    mixed = {"weak_view": "own_crop", "unlabelled": split.images[:8], "unlabelled_batch_size": 4}
    loader = batches(few, recipe, size=8, device="meta", memory_budget_mib=budget, workers=0, **mixed)
    with DeviceCheck("meta") as operations:
        found = list(loader.epoch(1))
    assert [batch.views[0].shape for batch in found] == [(8, 3, 16, 16), (2, 3, 16, 16)]
    assert operations.count["addcmul.out"] >= 4  # views and weak views, labelled and not


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("budget", [None, 0])
def test_the_paths_of_other_devices_give_the_same_bits_in_their_layout(split, recipe, budget, monkeypatch):
    loader = batches(split, recipe, views=2)
    expected = [batch.views for batch in loader.epoch(1)]
    monkeypatch.setattr(geometry, "SPANS_ON", ())
    monkeypatch.setattr(randaugment, "_transforms_all", lambda device: True)
    monkeypatch.setattr(steps, "memory_format", lambda device: torch.contiguous_format)
    for views, batch in zip(
        expected, batches(split, recipe, views=2, memory_budget_mib=budget, workers=0).epoch(1), strict=True
    ):
        for mine, other in zip(batch.views, views, strict=True):
            assert torch.equal(mine, other)
            assert mine.is_contiguous()
    for batch in evaluation_batches(split, 32, MEAN, STD):
        assert batch.views[0].is_contiguous()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("budget", [None, 0])
def test_no_host_synchronisation_in_an_epoch_on_a_gpu(split, recipe, budget):
    loader = batches(split, recipe, views=2, device="cuda", memory_budget_mib=budget)
    list(loader.epoch(0))  # pinned memory and kernels are set up once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(loader.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, two in zip(found, batches(split, recipe, views=2).epoch(1), strict=True):
        for mine, other in zip(one.views, two.views, strict=True):
            torch.testing.assert_close(mine.cpu(), other, rtol=0, atol=1e-4)

"""The epoch plan: pure, independent draws of the right distribution."""

import pytest
import torch

from kdhelpers.data import parse_recipe, plan_epoch
from kdhelpers.data.augmentation.randaugment import CODES

EVERYTHING = "crop flip randaugment rotation jitter cutout"


def equal(one, two):
    return torch.equal(one.order, two.order) and all(
        torch.equal(one.draws[step], two.draws[step]) for step in one.draws
    )


def test_the_plan_is_a_pure_function_of_seed_and_epoch():
    recipe = parse_recipe(EVERYTHING)
    first = plan_epoch(recipe, 500, 32, 2, seed=1, epoch=4)
    torch.manual_seed(99)  # the global generator has no part in it
    assert equal(first, plan_epoch(recipe, 500, 32, 2, seed=1, epoch=4))
    for seed, epoch in ((2, 4), (1, 5), (4, 1)):
        other = plan_epoch(recipe, 500, 32, 2, seed, epoch)
        assert not torch.equal(first.order, other.order)
        assert not any(torch.equal(first.draws[step], other.draws[step]) for step in first.draws)


def test_order_is_a_permutation():
    assert plan_epoch(parse_recipe(""), 1000, 32, 1, 0, 0).order.sort().values.tolist() == list(range(1000))


def test_views_are_independent_and_more_of_them_do_not_move_the_first():
    recipe = parse_recipe(EVERYTHING)
    three, one = plan_epoch(recipe, 400, 32, 3, 0, 0), plan_epoch(recipe, 400, 32, 1, 0, 0)
    for step, values in three.draws.items():
        assert torch.equal(values[:1], one.draws[step])
    share = (three.draws["crop"][0] == three.draws["crop"][1]).all(-1).float().mean()
    assert share < 0.05  # 1 in 81 by chance


def test_another_step_in_the_recipe_moves_no_other_draw():
    alone, together = (plan_epoch(parse_recipe(text), 100, 32, 1, 0, 0) for text in ("crop", EVERYTHING))
    assert torch.equal(alone.draws["crop"], together.draws["crop"])
    assert torch.equal(alone.order, together.order)


def test_draws_cover_their_ranges_evenly():
    draws = plan_epoch(parse_recipe("crop=2 flip rotation=10 jitter=0.4/0.1 cutout"), 20000, 8, 1, 0, 0).draws
    offsets = torch.bincount(draws["crop"][0, :, 0] * 5 + draws["crop"][0, :, 1], minlength=25)
    assert (offsets / 20000 - 1 / 25).abs().max() < 0.006
    assert abs(draws["flip"].float().mean() - 0.5) < 0.015
    assert draws["cutout"].unique().tolist() == list(range(8))
    for values, low, high in (
        (draws["rotation"][..., 1].atan2(draws["rotation"][..., 0]).rad2deg(), -10, 10),
        (draws["jitter"][..., :3], 0.6, 1.4),
        (draws["jitter"][..., 3], -0.1, 0.1),
    ):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high >= values.max() > high - 0.01 * (high - low)


def test_every_operation_of_randaugment_is_drawn_as_often():
    drawn = plan_epoch(parse_recipe("randaugment"), 20000, 8, 1, 0, 0).draws["randaugment"]
    shares = torch.bincount(drawn.flatten(), minlength=CODES) / drawn.numel()
    assert len(shares) == CODES
    assert (shares - 1 / CODES).abs().max() < 0.005


@pytest.mark.parametrize("least", [0.08, 0.35, 1.0])
def test_boxes_lie_in_the_image_and_have_the_area_and_aspect_asked_for(least):
    boxes = plan_epoch(parse_recipe(f"resized_crop={least}"), 5000, 96, 1, 0, 0).draws["resized_crop"][0]
    top, left, height, width = boxes.unbind(1)
    assert boxes.dtype == torch.int64
    assert bool((boxes >= 0).all())
    assert bool((top + height <= 96).all())
    assert bool((left + width <= 96).all())
    area = height * width / 96**2
    assert area.min() > least * 0.95  # rounded to whole pixels
    aspect = width / height
    assert aspect.min() > 0.7
    assert aspect.max() < 1.43
    if least == 0.08:
        assert area.min() < 0.1
        assert area.max() > 0.95
        assert abs(aspect.log().mean()) < 0.02

"""Augmentation against torchvision and against the plain per-image definition, with the same draws."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as reference

from kdhelpers.data import Recipe, augment, parse_recipe, plan_epoch
from kdhelpers.data.augmentation.colour import jitter
from kdhelpers.data.augmentation.geometry import direction, resized_crop, rotate
from kdhelpers.data.augmentation.randaugment import randaugment
from kdhelpers.data.augmentation.recipe import erase_square

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def draws_for(recipe, images, size=32):
    plan = plan_epoch(parse_recipe(recipe), len(images), size, views=1, seed=3, epoch=5)
    return {step: values[0] for step, values in plan.draws.items()}


def normalised(images):
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return torch.addcmul(-mean / std, images.float(), 1 / (255 * std))


@pytest.mark.parametrize("padding", [1, 4, 6])
def test_crop_and_flip_equal_pad_crop_flip_one_image_at_a_time_bit_for_bit(images, padding):
    recipe = parse_recipe(f"crop={padding} flip")
    draws = draws_for(f"crop={padding} flip", images)
    result = augment(images, draws, recipe, MEAN, STD)
    assert draws["flip"].any()
    assert not draws["flip"].all()
    for image, (top, left), flip, found in zip(images, draws["crop"].tolist(), draws["flip"], result, strict=True):
        expected = F.pad(image, [padding] * 4)[:, top : top + 32, left : left + 32]
        expected = expected.flip(2) if flip else expected
        assert torch.equal(found, normalised(expected))


def test_without_steps_images_are_only_normalised_into_channels_last(images):
    result = augment(images, {}, Recipe(), MEAN, STD)
    assert result.is_contiguous(memory_format=torch.channels_last)
    expected = (images.double() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-6)
    assert augment(images, {}, Recipe(), MEAN, STD, torch.bfloat16).dtype == torch.bfloat16


def test_images_that_are_not_square_keep_their_sides():
    images = torch.randint(0, 256, (4, 3, 20, 28), dtype=torch.uint8)
    draws = {"crop": torch.tensor([[0, 8], [8, 0], [4, 4], [1, 7]]), "flip": torch.tensor([True, False, True, False])}
    result = augment(images, draws, parse_recipe("crop flip"), MEAN, STD)
    expected = F.pad(images[0], [4] * 4)[:, 0:20, 8:36].flip(2)
    assert torch.equal(result[0], normalised(expected))


def test_jitter_is_torchvisions_in_the_fixed_order(images):
    pixels = images.float() / 255
    factors = draws_for("jitter=0.8/0.5", images)["jitter"]
    found = jitter(pixels, factors)
    for image, (brightness, contrast, saturation, hue), result in zip(pixels, factors.tolist(), found, strict=True):
        image = reference.adjust_brightness(image, brightness)
        image = reference.adjust_contrast(image, contrast)
        image = reference.adjust_saturation(image, saturation)
        torch.testing.assert_close(result, reference.adjust_hue(image, hue), rtol=0, atol=2e-5)


def test_jitter_leaves_grey_black_and_white_finite_and_without_hue():
    grey = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    result = jitter(grey, torch.tensor([[1.0, 1.0, 1.5, 0.3]]).expand(3, 4))
    torch.testing.assert_close(result, grey, rtol=0, atol=1e-4)  # torchvision's luma weights add up to 0.9999


def test_rotation_is_torchvisions(images):
    pixels = images.float() / 255
    degrees = torch.linspace(-180, 180, len(images))
    degrees[0] = 90.0
    found = rotate(pixels, direction(degrees))
    for image, angle, result in zip(pixels, degrees.tolist(), found, strict=True):
        same = (result == reference.rotate(image, angle)).float().mean()
        assert same > 0.998  # a pixel halfway between two may fall to either
    assert torch.equal(found[0], pixels[0].rot90(1, (1, 2)))


@pytest.mark.parametrize("size", [32, 97])
def test_resized_crop_is_torchvisions_antialiased_one(size):
    images = torch.rand(12, 3, size, size, generator=torch.Generator().manual_seed(1))
    boxes = draws_for("resized_crop=0.05", images, size)["resized_crop"]
    flip = torch.arange(12) % 2 == 0
    found = resized_crop(images, boxes, flip)
    for image, box, mirrored, result in zip(images, boxes.tolist(), flip, found, strict=True):
        expected = reference.resized_crop(image, *box, size=[size, size], antialias=True)
        torch.testing.assert_close(result, expected.flip(2) if mirrored else expected, rtol=0, atol=1e-5)


def test_resized_crop_of_the_whole_image_changes_nothing():
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(resized_crop(images, torch.tensor([[0, 0, 64, 64]]).expand(2, 4)), images)


@pytest.mark.parametrize(("size", "centre"), [(8, (0, 31)), (5, (16, 16)), (64, (3, 3))])
def test_cutout_sets_a_clipped_square_to_zero_and_nothing_else(size, centre):
    images = torch.rand(1, 3, 32, 32) + 1
    expected = images.clone()
    top, left = (middle - size // 2 for middle in centre)
    expected[:, :, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    assert torch.equal(erase_square(images, torch.tensor([centre]), size), expected)


def test_every_step_together_follows_the_written_order(images):
    text = "crop flip rotation=20 jitter=0.3/0.2 cutout=6"
    draws = draws_for(text, images)
    found = augment(images, draws, parse_recipe(text), MEAN, STD)
    pixels = augment(images, draws, parse_recipe("crop flip"), (0, 0, 0), (1, 1, 1))
    pixels = jitter(rotate(pixels, draws["rotation"]), draws["jitter"])
    expected = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    expected = erase_square(expected, draws["cutout"], 6)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_randaugment_stands_between_the_flip_and_the_rotation(images):
    draws = draws_for("crop flip randaugment=2/15 rotation=20", images)
    found = augment(images, draws, parse_recipe("crop flip randaugment=2/15 rotation=20"), (0, 0, 0), (1, 1, 1))
    pixels = augment(images, draws, parse_recipe("crop flip"), (0, 0, 0), (1, 1, 1))
    pixels = randaugment((pixels * 255).round().byte(), draws["randaugment"], 15) / 255
    torch.testing.assert_close(found, rotate(pixels, draws["rotation"]), rtol=0, atol=1e-6)


def test_augment_does_not_write_on_its_input(images):
    before = images.clone()
    text = "crop flip randaugment rotation jitter cutout"
    augment(images, draws_for(text, images), parse_recipe(text), MEAN, STD)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", "none"),
        ("none", "none"),
        ("flip crop", "crop flip"),
        ("crop=4 cutout=8 jitter=0.4/0.1", "crop jitter cutout"),
        ("crop=2 rotation=30 jitter=0.5", "crop=2 rotation=30 jitter=0.5/0"),
        ("randaugment=2/9 crop", "crop randaugment"),
        ("randaugment=3/5", "randaugment=3/5"),
        ("flip resized_crop=0.2", "resized_crop=0.2 flip"),
        ("crop:2 jitter:0.5/0.2", "crop=2 jitter=0.5/0.2"),
    ],
)
def test_recipes_have_one_canonical_text(text, canonical):
    recipe = parse_recipe(text)
    assert str(recipe) == canonical
    assert parse_recipe(canonical) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop blur", "unknown step 'blur'; known: crop, resized_crop, flip, randaugment, rotation"),
        ("crop=0", "crop takes a whole number"),
        ("crop=x", "crop takes a whole number"),
        ("crop=", "crop takes a whole number"),
        ("jitter=2/0.1", "strength in .0, 1."),
        ("jitter=0.4/0.6", "hue in .0, 0.5."),
        ("jitter=0.4/", "jitter takes"),
        ("randaugment=0/9", "operations in 1..10"),
        ("randaugment=2/31", "magnitude in 0..30"),
        ("randaugment=2", "randaugment takes operations/magnitude"),
        ("rotation=181", "whole degrees"),
        ("resized_crop=nan", "share of the area"),
        ("flip=1", "flip takes no value"),
        ("flip flip", "occurs twice"),
        ("crop resized_crop", "exclude each other"),
    ],
)
def test_bad_recipes_are_refused_with_the_remedy(text, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(text)

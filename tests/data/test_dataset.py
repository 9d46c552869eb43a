"""Splits, statistics, duplicates, hashes, and the embedded digits."""

import numpy as np
import pytest
import torch

from kdhelpers.data import Data, Split, load_data
from kdhelpers.data.dataset import channel_statistics, count_duplicates, fingerprint, split_validation, stratified


def random_split(count, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Split(images, torch.randint(0, classes, (count,), generator=generator))


@pytest.mark.parametrize("count", [0, 1, 37, 100])
def test_stratified_takes_exactly_as_many_and_each_class_in_proportion(count):
    labels = torch.randint(0, 7, (400,), generator=torch.Generator().manual_seed(1))
    rest, chosen = stratified(labels, count, seed=0)
    assert len(chosen) == count
    assert sorted(rest.tolist() + chosen.tolist()) == list(range(400))
    share = torch.bincount(labels[chosen], minlength=7) - torch.bincount(labels) * count / 400
    assert share.abs().max() < 1


def test_stratified_is_a_function_of_labels_and_seed_alone():
    labels = torch.arange(200) % 5
    np.random.seed(1)
    torch.manual_seed(1)
    first = stratified(labels, 40, seed=3)[1]
    np.random.seed(2)
    torch.manual_seed(2)
    assert torch.equal(first, stratified(labels, 40, seed=3)[1])
    assert not torch.equal(first, stratified(labels, 40, seed=4)[1])


def test_a_class_of_one_sample_stays_in_training():
    labels = torch.tensor([0] * 10 + [1] + [2])
    rest, _ = stratified(labels, 6, seed=0)
    assert {1, 2} <= set(labels[rest].tolist())


def test_validation_is_split_off_training_and_may_be_empty():
    split = random_split(100)
    train, val = split_validation(split, 0.2, seed=0)
    assert (len(train), len(val)) == (80, 20)
    assert count_duplicates(val, [train]) == 0
    assert count_duplicates(val, [split]) == 20
    train, val = split_validation(split, 0, seed=0)
    assert (len(train), len(val)) == (100, 0)
    assert val.images.shape == (0, 3, 8, 8)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_validation_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="val_fraction = .*: is out of range; choose a number in"):
        split_validation(random_split(10), fraction, seed=0)


def test_statistics_are_those_of_all_pixels():
    split = random_split(50)
    mean, std = channel_statistics(split.images)
    pixels = split.images.double() / 255
    torch.testing.assert_close(torch.tensor(mean).double(), pixels.mean((0, 2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(std).double(), pixels.std((0, 2, 3), correction=0), rtol=0, atol=1e-6)


def test_a_constant_channel_can_still_be_normalised():
    assert channel_statistics(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))[1] == (1e-3,) * 3


def test_duplicates_are_exact_copies_only():
    train, test = random_split(20, seed=1), random_split(10, seed=2)
    test.images[3], test.images[7] = train.images[5], train.images[5]
    test.images[8] = train.images[6]
    test.images[8, 0, 0, 0] ^= 1
    assert count_duplicates(test, [train]) == 2


def test_the_fingerprint_forgets_the_order_and_nothing_else():
    split = random_split(30)
    name = fingerprint(split)
    assert fingerprint(split.select(torch.randperm(30))) == name
    other = Split(split.images, split.labels.clone())
    other.labels[4] = (other.labels[4] + 1) % 4
    assert fingerprint(other) != name
    other = Split(split.images.clone(), split.labels)
    other.images[4, 1, 2, 3] ^= 1
    assert fingerprint(other) != name


def test_the_content_hash_sees_every_pixel_and_label():
    def data(test):
        part = random_split(10)
        return Data("x", part, part, test, list("abcd"), None, None, (0.5,) * 3, (0.2,) * 3)

    one = data(random_split(10, seed=3))
    assert one.content_hash == data(random_split(10, seed=3)).content_hash
    changed = random_split(10, seed=3)
    changed.images[9, 2, 7, 7] ^= 1
    assert data(changed).content_hash != one.content_hash
    changed = random_split(10, seed=3)
    changed.labels[0] = (changed.labels[0] + 1) % 4
    assert data(changed).content_hash != one.content_hash


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def test_digits_are_embedded_stratified_and_always_the_same(digits):
    assert (len(digits.train) + len(digits.val), len(digits.test)) == (1437, 360)
    assert digits.image_size == 16
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.images.is_contiguous()
    assert digits.superclasses is None
    assert digits.class_names == [str(digit) for digit in range(10)]
    for split in (digits.val, digits.test):
        counts = torch.bincount(split.labels, minlength=10)
        assert counts.max() - counts.min() <= 2
    assert load_data("digits").content_hash == digits.content_hash
    assert digits.card()["test_images_also_in_train_or_val"] == 0


def test_every_digit_can_be_told_from_its_ground_by_lightness(digits):
    images = torch.cat([digits.train.images, digits.test.images]).float() / 255
    luma = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).flatten(1)
    assert (luma.amax(1) - luma.amin(1)).min() > 0.2
    corner = images[:, :, 0, 0]
    assert corner.std(0).min() > 0.1  # grounds differ from image to image


def test_digits_can_be_recognised_by_shape_but_not_by_colour(digits):
    """A nearest-neighbour rule on |lightness - ground| knows the digits; the mean colour tells nothing."""

    def accuracy(features):
        train, test = features(digits.train.images.float()), features(digits.test.images.float())
        nearest = torch.cdist(test, train).argmin(1)
        return (digits.train.labels[nearest] == digits.test.labels).float().mean()

    def shape(images):
        grey = (images.mean(1) - images.mean(1)[:, :1, :1]).abs().flatten(1)
        return grey / grey.amax(1, keepdim=True)

    assert accuracy(shape) > 0.9
    assert accuracy(lambda images: images[:, :, 0, 0]) < 0.2


def test_digits_come_in_any_size():
    assert load_data("digits", image_size=16).train.images.shape[1:] == (3, 16, 16)


def test_images_are_made_contiguous():
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    assert Split(images, torch.tensor([0, 1])).images.is_contiguous()

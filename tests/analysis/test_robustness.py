"""Colour jitter of test images: fixed, one draw per image, nothing but colour; and what the drop then measures."""

import dataclasses
import hashlib
import math

import numpy
import pytest
import torch
from torch import nn

from kdhelpers.analysis.robustness import (
    STRENGTHS,
    colour_robustness,
    colour_robustness_bars,
    drop_difference,
    jittered,
    jittered_samples,
)
from kdhelpers.data import Data, Split
from kdhelpers.data.augmentation.colour import jitter
from kdhelpers.data.augmentation.plan import generator
from kdhelpers.models import FeatureExtractor


def split(count=230, size=6, seed=0):
    pixels = numpy.random.RandomState(seed).randint(0, 256, (count, 3, size, size)).astype("uint8")
    return Split(torch.from_numpy(pixels), torch.arange(count) % 2)


def same_image(count, colour=(200, 100, 50)):
    images = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].repeat(count, 1, 4, 4)
    images[:, :, :2] //= 2  # two tones, so that contrast shows too
    return Split(images, torch.zeros(count, dtype=torch.long))


def data_of(test):
    return Data("toy", test, test, test, ["even", "odd"], None, None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_strength_0_leaves_every_colour_as_it_is():
    everything = split(count=400, size=16)
    assert torch.equal(jittered(everything, 0, 0).images, everything.images)
    grey = Split(torch.arange(256, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 2, 2), torch.zeros(256).long())
    assert torch.equal(jittered(grey, 0, 0).images, grey.images)


def test_every_image_has_its_own_brightness_contrast_saturation_and_hue():
    shown = jittered(same_image(250), 0.4, 0.1).images.double()
    top = shown.amax(1).mean((1, 2))
    assert len(top.unique()) > 100  # brightness (and contrast)
    rotated = jittered(same_image(250), 0, 0.1).images.double()
    assert torch.equal(rotated.amax(1), same_image(250).images.amax(1).double())  # hue leaves the value alone
    assert torch.equal(rotated.amin(1), same_image(250).images.amin(1).double())
    assert len(rotated.flatten(1).unique(dim=0)) > 20


def test_pixels_are_those_of_the_one_image_jitter_with_the_drawn_factors():
    images, seed = split(), 3
    source = generator(seed, 0, "jitter", 0)
    three, hue = torch.rand(230, 3, generator=source), torch.rand(230, 1, generator=source)
    factors = torch.cat([0.2 + 1.6 * three, 0.4 * hue - 0.2], 1)
    shown = jittered(images, 0.8, 0.2, seed).images
    for i in (0, 99, 100, 229):  # on both sides of a chunk's border
        alone = 255 * jitter(images.images[i : i + 1].double() / 255, factors[i : i + 1].double())
        assert (shown[i] - alone[0]).abs().max() <= 0.51  # rounded, not cut off


def test_the_images_are_the_same_bit_for_bit_whatever_the_threads_and_on_every_machine():
    images = split()
    first = jittered(images, 0.8, 0.2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads != 3 else 1)
        second = jittered(images, 0.8, 0.2)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, images.labels)
    assert not torch.equal(first.images, jittered(images, 0.8, 0.2, seed=1).images)
    assert hashlib.sha256(first.images.numpy().tobytes()).hexdigest()[:16] == "f4f20582baad30f3"


def test_a_jitter_out_of_range_is_refused_with_the_range():
    for strength, hue in ((1.2, 0.1), (0.2, 0.6), (-0.1, 0)):
        with pytest.raises(ValueError, match=r"strength in \[0, 1\]/hue in \[0, 0.5\]"):
            jittered(split(2), strength, hue)


class Rule(nn.Module):
    """A network whose two logits are a function of each image."""

    def __init__(self, score):
        super().__init__()
        self.score, self.fc = score, nn.Identity()
        self.unused = nn.Parameter(torch.zeros(1))  # says which device it is on

    def forward(self, images):
        score = self.score(images)
        return self.fc(torch.stack([torch.zeros_like(score), score], 1))


def rule(score):
    return FeatureExtractor(Rule(score), feature_maps={}, classifier="fc")


def coloured(count=200):
    """Images of which the odd ones are bluer than red, by a margin that hue takes away for some."""
    images = split(count, seed=1).images
    low, high = images.sort(1).values[:, 0], images.sort(1).values[:, 2]
    odd = (torch.arange(count) % 2 == 1)[:, None, None]
    red, blue = torch.where(odd, low, high), torch.where(odd, high, low)
    return Split(torch.stack([red, images.sort(1).values[:, 1], blue], 1).contiguous(), torch.arange(count) % 2)


BLUER = rule(lambda images: (images[:, 2] - images[:, 0]).mean((1, 2)))
ALWAYS_ODD = rule(lambda images: torch.ones(len(images)))
HUE = {"hue": (0.0, 0.5)}


def test_a_network_that_ignores_colour_loses_nothing():
    by_value = rule(lambda images: images.amax(1).mean((1, 2)) - 0.75)
    frame = colour_robustness({"constant": ALWAYS_ODD, "by value": by_value}, data_of(split()), {**STRENGTHS, **HUE})
    constant, value = (frame[frame["model"] == name] for name in ("constant", "by value"))
    assert constant[["drop_pct", "drop_low_pct", "drop_high_pct"]].eq(0).all(axis=None)
    assert constant["retained"].tolist() == [1, 1, 1, 1]
    hue = value[value["strength"] == "hue"]
    assert hue[["drop_pct", "drop_low_pct", "drop_high_pct"]].eq(0).all(axis=None)


def test_the_drop_is_counted_image_by_image():
    data = data_of(coloured())
    row = colour_robustness({"bluer": BLUER}, data, HUE, seed=5).iloc[0]
    images, labels = jittered(data.test, *HUE["hue"], seed=5).images.double(), data.test.labels
    right = ((images[:, 2] - images[:, 0]).mean((1, 2)) > 0) == labels.bool()
    assert (row["model"], row["strength"], row["n"], row["plain_pct"]) == ("bluer", "hue", 200, 100)
    assert row["jittered_pct"] == pytest.approx(100 * right.double().mean().item())
    assert row["drop_pct"] == pytest.approx(100 - row["jittered_pct"])
    assert row["retained"] == pytest.approx(row["jittered_pct"] / 100)
    deviation = 100 * math.sqrt(row["retained"] * (1 - row["retained"]) / 200)  # all plain are right: a binomial's
    assert deviation > 1
    assert row["drop_high_pct"] - row["drop_pct"] == pytest.approx(1.96 * deviation, rel=0.15)
    assert row["drop_pct"] - row["drop_low_pct"] == pytest.approx(1.96 * deviation, rel=0.15)


def test_all_networks_see_the_same_images_and_rows_follow_the_strengths():
    frame = colour_robustness({"one": BLUER, "two": BLUER}, data_of(coloured()))
    assert frame["strength"].tolist() == [name for name in STRENGTHS for _ in range(2)]
    one, two = (frame[frame["model"] == name].drop(columns="model").reset_index(drop=True) for name in ("one", "two"))
    assert one.equals(two)
    columns = "model strength plain_pct jittered_pct drop_pct drop_low_pct drop_high_pct retained n"
    assert list(frame.columns) == columns.split()


def test_the_difference_of_two_drops_is_paired_over_the_images():
    data = data_of(coloured())
    frame = colour_robustness({"bluer": BLUER, "constant": ALWAYS_ODD}, data, HUE)
    found = drop_difference(BLUER, ALWAYS_ODD, data, HUE["hue"])
    assert found["difference"] == pytest.approx(frame["drop_pct"].iloc[0] - frame["drop_pct"].iloc[1])
    assert found["low"] < found["difference"] < found["high"]


def test_a_network_that_is_never_right_retains_nothing_that_is_defined():
    even = dataclasses.replace(split(), labels=torch.zeros(230, dtype=torch.long))
    row = colour_robustness({"odd": ALWAYS_ODD}, data_of(even), HUE).iloc[0]
    assert (row["plain_pct"], row["drop_pct"]) == (0, 0)
    assert math.isnan(row["retained"])


def test_bars_show_the_drops_of_each_strength_beside_the_plain_accuracy():
    frame = colour_robustness({"bluer": BLUER, "constant": ALWAYS_ODD}, data_of(coloured()))
    figure = colour_robustness_bars(frame)
    assert [axes.get_title() for axes in figure.axes] == ["mild jitter", "medium jitter", "strong jitter"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["bluer (100.0 %)", "constant (50.0 %)"]
    for axes, strength in zip(figure.axes, STRENGTHS, strict=True):
        rows = frame[frame["strength"] == strength]
        assert [bar.get_width() for bar in axes.patches] == rows["drop_pct"].tolist()
        whiskers = [list(line.get_xdata()) for line in axes.lines]
        assert whiskers == rows[["drop_low_pct", "drop_high_pct"]].to_numpy().tolist()


def test_samples_are_the_very_images_that_the_networks_see():
    data = data_of(split())
    figure = jittered_samples(data, count=5, seed=2)
    grid = numpy.array([axes.images[0].get_array() for axes in figure.axes]).reshape(4, 5, 6, 6, 3)
    assert [axes.get_ylabel() for axes in figure.axes[::5]] == ["plain", *STRENGTHS]
    plain = data.test.images.permute(0, 2, 3, 1).numpy()
    chosen = [next(i for i in range(230) if numpy.array_equal(plain[i], image)) for image in grid[0]]
    assert len(set(chosen)) == 5
    for line, setting in zip(grid[1:], STRENGTHS.values(), strict=True):
        seen = jittered(data.test, *setting, seed=2).images.permute(0, 2, 3, 1).numpy()
        assert numpy.array_equal(line, seen[chosen])
    assert [axes.get_title() for axes in figure.axes[:5]] == [data.class_names[i % 2] for i in chosen]

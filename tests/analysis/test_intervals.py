"""The bootstrap interval of a mean: against theory, against itself, and at the smallest counts."""

import math

import numpy
import pytest
import torch

from kdhelpers.analysis.intervals import interval_bars, mean_interval, paired_difference


def sample(count=400, seed=0):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_interval_is_that_of_resampled_means():
    values = sample().numpy()
    mean, low, high = mean_interval(torch.from_numpy(values))
    random = numpy.random.default_rng(1)
    means = [random.choice(values, len(values)).mean() for _ in range(20_000)]
    assert mean == pytest.approx(values.mean(), abs=1e-12)
    assert (low, high) == pytest.approx(numpy.quantile(means, [0.025, 0.975]), abs=0.1 * numpy.std(means))


def test_the_interval_holds_the_truth_19_times_in_20():
    intervals = [mean_interval(sample(100, seed), resamples=500) for seed in range(300)]
    assert 0.91 < sum(low < 0.5 < high for _, low, high in intervals) / 300 < 0.98


def test_the_same_images_are_drawn_for_every_quantity():
    values = sample()
    moved = mean_interval(3 * values + 1)
    assert moved == pytest.approx([3 * number + 1 for number in mean_interval(values)], abs=1e-9)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.int64])
def test_any_number_is_counted_in_float64(dtype):
    values = (sample() > 0.3).to(dtype)
    assert mean_interval(values) == mean_interval(values.double())


def test_one_value_has_no_interval_and_none_is_refused():
    mean, low, high = mean_interval(torch.tensor([2.5]))
    assert mean == 2.5
    assert math.isnan(low)
    assert math.isnan(high)
    with pytest.raises(ValueError, match="values: none given; a mean needs at least one image"):
        mean_interval(torch.tensor([]))


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval(torch.full((50,), 0.25)) == (0.25, 0.25, 0.25)


def test_bars_are_as_long_as_the_values_with_the_first_on_top():
    panels = {"mild": [(2.0, 1.0, 3.0), (-1.0, -2.5, 0.5)], "strong": [(4.0, math.nan, math.nan), (8.0, 7.0, 9.0)]}
    figure = interval_bars(["SI", "LM"], panels, "points lost")
    figure.draw_without_rendering()
    mild, strong = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["mild", "strong"]
    assert [bar.get_width() for axes in figure.axes for bar in axes.patches] == [2, -1, 4, 8]
    assert [list(line.get_xdata()) for line in mild.lines] == [[1, 3], [-2.5, 0.5]]
    assert [text.get_text() for text in mild.get_yticklabels()] == ["SI", "LM"]
    assert mild.yaxis_inverted()
    assert mild.get_xlim() == strong.get_xlim()
    assert [text.get_text() for text in strong.texts] == ["4", "8"]
    assert [text.xy[0] for text in strong.texts] == [4, 9]  # beyond the interval
    assert strong.get_xlim()[1] > 9
    assert interval_bars(["a"], {"x": [(1.0, 1, 1)], "y": [(9.0, 9, 9)]}, "", one_scale=False).axes[0].get_xlim()[1] < 2


def test_a_paired_difference_leaves_out_images_without_a_measure():
    first = torch.tensor([1.0, 2.0, math.nan, 4.0])
    found = paired_difference(first, torch.tensor([0.0, 0.0, 0.0, 3.0]))
    assert (found["difference"], found["n"]) == (pytest.approx(4 / 3), 3)
    assert found["low"] <= found["difference"] <= found["high"]

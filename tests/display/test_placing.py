"""Labels overlap neither each other nor the points."""

import itertools
import random

import pytest

from kdhelpers.display.placing import place_labels, spread
from kdhelpers.display.style import new_figure, styled


def boxes(axes):
    return [text.get_window_extent() for text in axes.texts]


def test_forty_labels_of_crowded_points_do_not_overlap_and_stay_inside():
    draw = random.Random(0)
    points = [(1 + abs(draw.gauss(0, 0.1)), draw.gauss(2, 1.5)) for _ in range(40)]
    with styled():
        figure = new_figure(9, 7)
        axes = figure.subplots()
        axes.set_xlim(0.5, 3)
        axes.set_ylim(-3, 7)
        place_labels(axes, points, [f"method {i}" for i in range(40)], ["k"] * 40, [0.3] * 40)
        figure.draw_without_rendering()
    placed, inside = boxes(axes), axes.get_window_extent()
    assert not any(first.overlaps(second) for first, second in itertools.combinations(placed, 2))
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in placed)
    pixels = axes.transData.transform(points)
    assert not any(box.contains(*point) for box in placed for point in pixels)


def test_a_single_label_stands_right_of_its_point_without_a_line():
    with styled():
        figure = new_figure(4, 3)
        axes = figure.subplots()
        axes.set_xlim(0, 2)
        place_labels(axes, [(1, 0.5)], ["KD"], ["k"], [0.1])
    (label,) = axes.texts
    assert label.get_position()[0] > 0
    assert not axes.lines


def test_a_label_that_fits_nowhere_is_still_written():
    with styled():
        figure = new_figure(1.2, 1.0)
        axes = figure.subplots()
        place_labels(axes, [(0.5, 0.5)], ["a name that is wider than the axes"], ["k"], [0])
    assert len(axes.texts) == 1


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ([], []),
        ([3.0, 9.0], [3.0, 9.0]),
        ([5.0, 5.0], [4.0, 6.0]),
        ([1.0, 5.0, 5.5, 6.0], [1.0, 3.5, 5.5, 7.5]),
        ([-4.0, 20.0], [0.0, 10.0]),
        ([9.0, 9.5, 10.0], [6.0, 8.0, 10.0]),
    ],
)
def test_labels_move_as_little_as_they_must(wanted, places):
    assert spread(wanted, 2.0, 0.0, 10.0) == pytest.approx(places)

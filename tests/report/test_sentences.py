"""The sentences on the accuracy of a network, and on which of two is better."""

from types import SimpleNamespace

import pytest
import torch

from kdhelpers.report.tables import difference, score, verdict


def pair(points, low, high, n=360):
    return {"difference_pct": points, "low_pct": low, "high_pct": high, "n": n}


@pytest.mark.parametrize(
    ("comparison", "text"),
    [
        (pair(5.83, 1.94, 9.72), "A beats B by 5.8 points (95 % interval 1.9 to 9.7): 360 test images, one seed."),
        (
            pair(0.83, -2.1, 3.89),
            "A and B do not differ beyond chance on these 360 test images: "
            "+0.8 points, 95 % interval −2.1 to 3.9, one seed.",
        ),
        (pair(-3.1, -5.0, -1.2), "A is 3.1 points below B: 95 % interval −5.0 to −1.2, 360 test images, one seed."),
        ([pair(0.0, 0.0, 0.0, n=1)], "these"),
    ],
)
def test_one_seed(comparison, text):
    if text == "these":
        assert "on this 1 test image: +0.0 points" in str(verdict("A", "B", comparison))
    else:
        assert str(verdict("A", "B", comparison)) == text


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ((1.0, 3.0), "A beats B with each of 2 seeds: +2.0 points on average, standard deviation 1.4 over the seeds, "),
        ((-1.0, -3.0), "A is below B with each of 2 seeds: −2.0 points on average, standard deviation 1.4 over the "),
        ((1.0, -1.0, 3.0), "A beats B with 2 of 3 seeds: +1.0 points on average, standard deviation 2.0 over the seed"),
    ],
)
def test_several_seeds(points, text):
    sentence = str(verdict("A", "B", [pair(value, -9, 9, n=10_000) for value in points]))
    assert sentence.startswith(text)
    assert sentence.endswith("seeds, 10,000 test images.")


def test_the_difference_is_bold_and_names_are_escaped():
    assert (
        verdict("<A>", "B", pair(5.83, 1.94, 9.72))
        ._repr_html_()
        .startswith("<p>&lt;A&gt; beats B by <b>5.8 points</b> (95 % interval")
    )


def test_no_result_is_refused():
    with pytest.raises(ValueError, match=r"comparison = \[\]: has no result; give what `compare` returns"):
        verdict("A", "B", [])


def hits(right, count):
    return SimpleNamespace(correct=torch.arange(count) < right, labels=torch.zeros(count))


@pytest.mark.parametrize(
    ("right", "count", "text"),
    [
        (329, 360, "A reaches 91.4 % of 360 test images (95 % interval 88.0 to 93.9), one seed."),
        (9000, 10000, "A reaches 90.0 % of 10,000 test images (95 % interval 89.4 to 90.6), one seed."),
        (10, 10, "A reaches 100.0 % of 10 test images (95 % interval 72.2 to 100.0), one seed."),
        (0, 1, "A reaches 0.0 % of 1 test image (95 % interval 0.0 to 79.3), one seed."),
    ],
)
def test_an_accuracy_has_wilsons_interval(right, count, text):
    assert str(score("A", hits(right, count))) == text


def test_an_accuracy_of_no_images_is_refused():
    with pytest.raises(ValueError, match="predictions: of no images"):
        score("A", hits(0, 0))


def measured(value, low, high, n=360):
    return {"difference": value, "low": low, "high": high, "n": n}


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (-0.071, -0.09, -0.055, "KL: A has 0.071 nats less than B, 95 % interval 0.055 to 0.090: 360 test images, "),
        (0.071, 0.055, 0.09, "KL: A has 0.071 nats more than B, 95 % interval 0.055 to 0.090: 360 test images, "),
        (0.01, -0.02, 0.04, "KL: A and B do not differ beyond chance on 360 test images: +0.010 nats, 95 % interval "),
    ],
)
def test_the_difference_of_a_measure(value, low, high, text):
    assert str(difference("KL", "A", "B", measured(value, low, high), "nats")).startswith(text)


def test_the_difference_of_a_measure_over_seeds():
    pairs = [measured(value, -9, 9, 10_000) for value in (-2.0, -3.0, 1.0)]
    assert str(difference("Drop", "A", "B", pairs, "points", digits=1)) == (
        "Drop: A has less than B with 2 of 3 seeds: −1.3 points on average, standard deviation 2.1 over the seeds, "
        "10,000 test images."
    )
    with pytest.raises(ValueError, match=r"pair = \[\]: has no result"):
        difference("Drop", "A", "B", [])

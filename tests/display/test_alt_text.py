"""The words of a picture: from its texts and values, the same each time, also in the file."""

import pytest
import record_fixtures as fixtures
from PIL import Image

from kdhelpers import gains, plots, results, summarize
from kdhelpers.display.alt_text import LONGEST, describe, title
from kdhelpers.display.style import new_figure


@pytest.fixture
def summary(root):
    fixtures.store(*fixtures.study())
    return summarize(results())


def test_bars_are_named_with_the_values_that_are_written_at_them(summary):
    words = describe(plots.bars(summary))
    assert words.startswith("teachers: resnet20, 8 epochs, batch 64 (n = 1) 60.0. resnet8, 8 epochs, batch 64: ")
    assert "KD (T=2.0) (n = 1) 53.0, KD (n = 3) 52.0, CE (no teacher) (n = 3) 50.0" in words
    assert title(plots.bars(summary)) == "teachers"


def test_curves_are_named_with_their_ends(root):
    words = describe(plots.curves({"KD": fixtures.history(8, 50.0)}, 60.0))
    assert words.startswith(
        "ce loss: loss (weighted) by epoch: KD 3.6 to 0.755. accuracy: validation top-1 (%), thin: training by epoch: "
    )
    assert "KD 15 to 47.1, teacher 60." in words


def test_gains_are_named_by_method(summary):
    words = describe(gains.picture(gains.by_seed("cifar100")))
    assert "KD +2.0 ± 0.5" in words
    assert "small points: one seed" in words


def test_bars_without_written_values_have_their_ends():
    figure = new_figure(3, 2)
    figure.subplots().bar(["cat", "dog"], [0.25, -3.5], bottom=40)
    assert describe(figure) == "cat 40.2, dog 36.5."


def test_a_panel_of_points_has_its_texts_and_an_image_is_called_one():
    figure = new_figure(3, 2)
    points, image = figure.subplots(1, 2)
    points.plot([1], [2])
    points.annotate("KD\n+1.0", (1, 2))
    image.imshow([[0, 1]])
    image.set(title="a map", xticks=[], yticks=[])
    assert describe(figure) == "KD +1.0 (1, 2). a map: an image."


def test_missing_values_and_empty_figures_have_words_without_them():
    figure = new_figure(3, 2)
    assert (describe(figure), title(figure)) == ("", "")
    figure.subplots().plot([1, 2, 3], [float("nan"), 2.0, 5.0], label="KD")
    assert describe(figure) == "KD 2 to 5."


def test_long_descriptions_are_cut():
    runs = {f"a run with a name {number}": fixtures.history(2) for number in range(40)}
    words = describe(plots.curves(runs))
    assert LONGEST - 10 < len(words) <= LONGEST
    assert words.endswith("…")


def test_the_file_has_the_words(root, summary):
    figure = plots.bars(summary)
    path = plots.save(figure, "bars")
    with Image.open(path) as picture:
        assert picture.text["Description"] == describe(figure)
        assert picture.text["Title"] == "teachers"
    first = path.read_bytes()
    assert plots.save(plots.bars(summary), "bars").read_bytes() == first

"""Is a gain real: paired seeds, the noise of the student alone by its formula, the choice of the epoch."""

import math

import pandas
import pytest
import record_fixtures as fixtures

from kdhelpers import noise
from kdhelpers.display.colours import look_of
from kdhelpers.report.noise_picture import MOST

ALONE, KD = (50.0, 51.0, 49.0), (52.0, 52.5, 48.5)


def with_last(record: dict, drop: float) -> dict:
    """The record whose last epoch is `drop` points below its best."""
    record["history"][-1]["val_top1_pct"] = max(row["val_top1_pct"] for row in record["history"][:-1]) - drop
    return record


@pytest.fixture
def stored(root):
    fixtures.store(
        *(with_last(fixtures.record(top1, seed=seed), 0.5) for seed, top1 in enumerate(ALONE)),
        *(with_last(fixtures.record(top1, seed=seed, **fixtures.LM), 0.1 * seed) for seed, top1 in enumerate(KD)),
    )


def test_the_noise_is_the_root_mean_square_difference_of_two_seeds_alone(stored):
    frame = noise.frame("cifar100")
    pairs = [(one - other) ** 2 for place, one in enumerate(ALONE) for other in ALONE[:place]]
    assert list(frame["noise_points"]) == pytest.approx([math.sqrt(sum(pairs) / len(pairs))] * 3)
    assert set(frame["noise_n"]) == {3}


def test_the_choice_of_the_epoch_is_best_minus_last_validation_accuracy(stored):
    frame = noise.frame("cifar100")
    assert list(frame["best_minus_last_points"]) == pytest.approx([0.0, 0.1, 0.2])
    assert list(frame["alone_best_minus_last_points"]) == pytest.approx([0.5] * 3)
    assert set(frame["val_images"]) == {5000}


def test_a_summary_has_the_t_interval_and_the_seeds_that_gain(stored):
    (row,) = noise.summary(noise.frame("cifar100")).to_dict("records")
    gains = pandas.Series([2.0, 1.5, -0.5])
    half = 4.302653 * gains.std() / math.sqrt(3)  # t of two degrees of freedom, from a printed table
    assert (row["method"], row["gain_n"], row["seeds_above_0"]) == ("KD", 3, 2)
    assert row["gain_points"] == pytest.approx(1.0)
    assert (row["gain_low_points"], row["gain_high_points"]) == pytest.approx((1 - half, 1 + half), rel=1e-5)
    assert row["noise_points"] == pytest.approx(math.sqrt(2 / 3))
    assert row["best_minus_last_points"] == pytest.approx(0.1)
    text = str(noise.table(noise.frame("cifar100")))
    assert "2 of 3" in text
    assert "noise from the student alone, n = 3" in text


def test_a_single_seed_has_neither_noise_nor_interval(root):
    fixtures.store(fixtures.record(50.0), fixtures.record(52.0, **fixtures.LM))
    (row,) = noise.summary(noise.frame("cifar100")).to_dict("records")
    assert all(map(math.isnan, (row["noise_points"], row["gain_low_points"])))
    figure = noise.picture(noise.frame("cifar100"))
    assert "band" not in figure.axes[0].get_title(loc="left")
    assert "–" in str(noise.table(noise.frame("cifar100")))


def test_the_picture_has_a_line_per_seed_in_the_methods_colour_and_the_band(stored):
    figure = noise.picture(noise.frame("cifar100"))
    pairs, epochs = figure.axes
    lines = [list(line.get_ydata()) for line in pairs.lines if line.get_marker() == "o"]
    assert lines == [[alone, taught] for alone, taught in zip(ALONE, KD, strict=True)]
    assert {line.get_color() for line in pairs.lines if line.get_marker() == "o"} == {look_of("lm").colour}
    (band,) = pairs.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((50 - math.sqrt(2), 50 + math.sqrt(2)))
    assert "√2 × standard deviation over 3 seeds" in pairs.get_title(loc="left")
    assert [label.get_text() for label in epochs.get_xticklabels()] == ["KD\n2 of 3 up"]
    assert "5,000 images" in epochs.get_title(loc="left")


def test_runs_without_validation_images_have_no_panel_of_epochs(root):
    records = [fixtures.record(50.0), fixtures.record(52.0, **fixtures.LM)]
    for record in records:
        record["history"] = [row | {"val_top1_pct": None} for row in record["history"]]
    fixtures.store(*records)
    assert noise.frame("cifar100")["best_minus_last_points"].isna().all()
    assert len(noise.picture(noise.frame("cifar100")).axes) == 1


def test_more_methods_than_fit_are_named_as_left_out(stored):
    frame = noise.frame("cifar100")
    many = pandas.concat([frame.assign(method=f"KD (T={number}.0)") for number in range(MOST + 5)])
    figure = noise.picture(many)
    assert len(figure.axes[1].get_xticklabels()) == MOST
    assert "5 methods of smaller gains are in the table alone" in figure.get_supxlabel()


def test_nothing_stored_gives_an_empty_frame_picture_and_table(root):
    frame = noise.frame("cifar100")
    assert frame.empty
    assert noise.summary(frame).empty
    assert noise.picture(frame).axes
    assert "no stored student" in str(noise.table(frame))

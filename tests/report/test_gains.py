"""Gains over the student alone: paired by seed, of one budget and teacher, sorted; a point per seed."""

import pytest
import record_fixtures as fixtures

from kdhelpers import gains, results, summarize
from kdhelpers.display.colours import look_of
from kdhelpers.display.style import MAX_WIDTH
from kdhelpers.report.gains_picture import HIGHEST, pages

ALONE = {"method": "si", "teacher": None, "name": "alone_lion"}
DKD = fixtures.LM | {"method": "dkd", "hyperparameters": {}}


@pytest.fixture
def stored(root):
    """At one budget: alone, KD and DKD with seeds 0 to 2, KD also with seed 3; at another one: alone and KD."""
    fixtures.store(
        *(fixtures.record(top1, seed=seed) for seed, top1 in enumerate((50.0, 51.0, 49.0))),
        *(fixtures.record(top1, seed=seed, **fixtures.LM) for seed, top1 in enumerate((52.0, 52.5, 51.5, 60.0))),
        *(fixtures.record(top1, seed=seed, **DKD) for seed, top1 in enumerate((55.0, 57.0, 55.0))),
        fixtures.record(40.0, epochs=2, name="short"),
        fixtures.record(41.0, epochs=2, **fixtures.LM | {"name": "short_lm"}),
    )


def test_gains_are_paired_by_seed_and_sorted(stored):
    frame = gains.by_seed("cifar100")
    assert list(frame["method"]) == ["DKD"] * 3 + ["KD"] * 3  # the fourth seed of KD has no student alone
    assert list(frame["gain_points"]) == pytest.approx([5.0, 6.0, 6.0, 2.0, 1.5, 2.5])
    assert set(frame["budget"]) == {"8 epochs, batch 64"}
    assert set(frame["teacher"]) == {"resnet20"}


def test_the_answer_is_a_sentence_also_if_no_method_gains(stored):
    frame = gains.by_seed("cifar100")
    assert gains.answer(frame) == "DKD has the largest mean gain: **+5.67 ± 0.58 (3 seeds)**, in points."
    worse = frame.assign(gain_points=frame["gain_points"] - 9, notes="leakage: of images")
    assert gains.answer(worse) == "DKD † loses least, no method gains: **−3.33 ± 0.58 (3 seeds)**, in points."


def test_a_stored_student_picks_the_budget(stored):
    frame = gains.by_seed("cifar100", like="short_lm")
    assert list(frame["gain_points"]) == pytest.approx([1.0])
    with pytest.raises(ValueError, match="like = nobody: not a student"):
        gains.by_seed("cifar100", like="nobody")


def test_students_of_another_teacher_are_left_out(stored):
    other = fixtures.record(90.0, **DKD | {"name": "other"})
    other["teacher"] |= {"sha256": "c" * 64, "model": "resnet56"}
    fixtures.store(other)
    assert set(gains.by_seed("cifar100")["teacher"]) == {"resnet20"}


def test_methods_without_a_teacher_are_in_the_frame_and_grey(stored):
    fixtures.store(fixtures.record(49.0, method="ls", hyperparameters={"smoothing": 0.1}))
    frame = gains.by_seed("cifar100")
    assert list(frame[frame["method"] == "label smoothing"]["teacher"]) == [""]
    axes = gains.picture(frame).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["DKD", "KD", "label smoothing"]
    colours = [line.get_color() for line in axes.lines if line.get_marker() == "D"]
    assert colours == [look_of(method).colour for method in ("dkd", "lm", "ls")]


def test_the_picture_has_each_seed_the_means_and_both_accuracies(stored):
    axes = gains.picture(gains.by_seed("cifar100")).axes[0]
    points = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
    assert points == [pytest.approx([5.0, 6.0, 6.0]), pytest.approx([2.0, 1.5, 2.5])]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["+5.7 ± 0.6", "+2.0 ± 0.5"]
    title = (
        "cifar100: resnet20 teaches resnet8, 8 epochs, batch 64\nstudent alone 50.0 % (line), teacher 60.0 % (dashed)"
    )
    assert axes.get_title(loc="left") == title
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [pytest.approx(10.0)]


def test_a_leak_is_marked(stored):
    fixtures.store(
        fixtures.record(52.0, **fixtures.LM) | {"notes": ["leakage: its teacher's training had test images"]}
    )
    axes = gains.picture(gains.by_seed("cifar100")).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["DKD", "KD †"]
    assert "† leakage" in axes.figure.get_supxlabel()


def test_a_single_seed_has_no_whisker_and_no_run_still_draws(stored):
    texts = [text.get_text() for text in gains.picture(gains.by_seed("cifar100", like="short")).axes[0].texts]
    assert texts[0] == "+1.0"
    assert gains.picture(gains.by_seed("cifar10")).axes[0].get_yticklabels() == []


def test_each_pair_and_budget_has_a_panel_that_names_what_distinguishes_it(stored):
    fixtures.store(*(_of_another_teacher(seed) for seed in (0, 1)))
    figures = gains.pictures("cifar100")
    assert list(figures) == ["results_gains_cifar100", "results_other_gains_cifar100"]
    figure, frame = figures["results_gains_cifar100"]
    assert len(figure.axes) == 1
    assert frame.equals(gains.by_seed("cifar100"))
    figure, frame = figures["results_other_gains_cifar100"]
    titles = [axes.get_title(loc="left").splitlines()[0] for axes in figure.axes]
    pair = "cifar100: resnet20 teaches resnet8"
    assert titles == [f"{pair}, 8 epochs, batch 64, teacher other_teacher", f"{pair}, 2 epochs, batch 64"]
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [["+6.5 ± 0.7"], ["+1.0"]]
    assert list(frame["comparison"]) == [1, 1, 2]
    assert figure.get_size_inches()[0] <= MAX_WIDTH


def _of_another_teacher(seed: int) -> dict:
    record = fixtures.record(56.0 + 2 * seed, seed=seed, **fixtures.LM | {"name": "other", "teacher": "other_teacher"})
    record["teacher"] |= {"sha256": "c" * 64}
    return record


def test_panels_that_do_not_fit_a_screen_are_on_the_next_picture(stored):
    frame = gains.by_seed("cifar100")
    found = pages([frame] * 20)
    assert [len(page) for page in found] == [6, 6, 6, 2]
    assert all(gains.picture(*page).get_size_inches()[1] <= HIGHEST for page in found)


def test_a_teacher_far_away_has_no_line(stored):
    axes = gains.picture(gains.by_seed("cifar100").assign(teacher_top1_pct=90.0)).axes[0]
    assert "teacher 90.0 %" in axes.get_title(loc="left")
    assert "dashed" not in axes.get_title(loc="left")
    assert axes.get_xlim()[1] < 20
    unknown = gains.picture(gains.by_seed("cifar100").assign(teacher_top1_pct=float("nan"))).axes[0]
    assert unknown.get_title(loc="left").splitlines()[1] == "student alone 50.0 % (line)"


def test_without_a_gain_there_is_no_picture(root):
    assert gains.pictures("cifar100") == {}


def test_a_student_by_another_optimiser_is_among_those_whose_student_alone_it_gains_over(stored):
    lion = DKD | {"optimizer": "lion", "optimizer_options": {}, "lr": 6e-4, "name": "lion"}
    fixtures.store(fixtures.record(60.0, **lion))
    frame = gains.by_seed("cifar100").set_index("method")
    assert frame.loc["DKD by Lion", "gain_points"] == 10.0
    summary = summarize(results()).set_index("label")
    assert summary.loc["DKD by Lion", "gain_points"] == 10.0  # the same number
    fixtures.store(fixtures.record(55.0, **lion | ALONE))
    assert "DKD by Lion" not in set(gains.by_seed("cifar100")["method"])
    assert list(gains.by_seed("cifar100", like="lion")["gain_points"]) == [5.0]


def test_every_mean_is_that_of_the_table(stored):
    means = gains.by_seed("cifar100").groupby("method")["gain_points"].mean()
    summary = summarize(results()).query("budget == '8 epochs, batch 64'").set_index("label")["gain_points"]
    assert {name: pytest.approx(value) for name, value in means.items()} == summary[list(means.index)].to_dict()

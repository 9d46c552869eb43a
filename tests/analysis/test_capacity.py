"""The capacity table: accuracies, agreement and gains of the right pairs; its picture."""

import pytest
import torch
from matplotlib.colors import to_hex

from kdhelpers.analysis import capacity, capacity_bars
from kdhelpers.display.colours import TEACHER, colour_of
from kdhelpers.evaluation.predictions import Predictions

LABELS = torch.arange(200) % 4


def predictions(share):
    """Right on the first `share` of the images, wrong on the rest."""
    answer = torch.where(torch.arange(200) < 200 * share, LABELS, (LABELS + 1) % 4)
    logits = 5 * torch.nn.functional.one_hot(answer, 4).float()
    return Predictions(logits, logits, LABELS, torch.arange(200))


TEACHERS = {"small": predictions(0.8), "large": predictions(0.9)}
STUDENTS = {"small": predictions(0.7), "large": predictions(0.6)}


def test_each_row_is_a_teacher_with_its_own_student():
    frame = capacity(TEACHERS, STUDENTS, predictions(0.5)).set_index("teacher")
    assert list(frame.index) == ["no teacher", "small", "large"]
    assert frame["teacher_top1_pct"].tolist()[1:] == pytest.approx([80, 90])
    assert frame["student_top1_pct"].tolist() == pytest.approx([50, 70, 60])
    assert frame["agreement_pct"].tolist()[1:] == pytest.approx([90, 70])
    assert frame["gain_points"].tolist()[1:] == pytest.approx([20, 10])
    assert (frame["gain_low_points"] < frame["gain_points"])[1:].all()
    assert frame.loc["small", "kl_nats"] < frame.loc["large", "kl_nats"]


def test_without_a_control_there_is_no_gain():
    frame = capacity(TEACHERS, STUDENTS)
    assert list(frame["teacher"]) == ["small", "large"]
    assert "gain_points" not in frame


def test_students_of_other_teachers_are_refused():
    with pytest.raises(ValueError, match="students: large for teachers small, large; give one for each"):
        capacity(TEACHERS, {"large": STUDENTS["large"]})


def test_bars_are_as_high_as_the_means_and_a_dot_is_a_seed():
    import pandas

    seeds = [capacity(TEACHERS, STUDENTS, predictions(alone)) for alone in (0.5, 0.4)]
    accuracy, gain = capacity_bars(pandas.concat(seeds)).axes
    assert [bar.get_height() for bar in accuracy.patches] == pytest.approx([45, 80, 70, 90, 60])
    assert [bar.get_height() for bar in gain.patches] == pytest.approx([25, 15])
    dots = [[value for line in axes.lines for value in line.get_ydata()] for axes in (accuracy, gain)]
    assert dots[0] == pytest.approx([50, 40])  # equal seeds have none
    assert dots[1] == pytest.approx([20, 30, 10, 20, 0, 0])  # the last two are the line of no gain
    assert [text.get_text() for text in gain.texts] == ["+25.00", "+15.00"]


def test_bars_without_a_control_have_one_panel():
    (axes,) = capacity_bars(capacity(TEACHERS, STUDENTS)).axes
    assert [to_hex(bar.get_facecolor()).upper() for bar in axes.patches] == 2 * [TEACHER, colour_of("KD")]

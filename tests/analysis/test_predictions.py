"""The pictures of predictions show the numbers that they should."""

import pytest
import torch

from kdhelpers.analysis import per_class, soft_targets
from kdhelpers.evaluation.predictions import Predictions


def predictions(logits, labels):
    return Predictions(logits, logits, labels, torch.arange(len(labels)))


def test_per_class_names_the_ten_worst_with_their_accuracy():
    labels = torch.arange(120).repeat_interleave(2)
    logits = torch.nn.functional.one_hot(labels, 120).float()
    logits[::2][:12] = logits[::2][:12].roll(1, 1)  # one of two images of classes 0..11 is wrong
    logits[1] = logits[1].roll(1)  # both of class 0
    every, named = per_class(predictions(logits, labels), [f"name{c}" for c in range(120)]).axes
    assert [bar.get_height() for bar in every.patches[:13]] == [0, *[50] * 11, 100]
    assert [bar.get_width() for bar in named.patches] == [*[50] * 9, 0]
    assert named.get_yticklabels()[-1].get_text() == "name0"
    assert len(named.patches) == 10


def test_names_with_dollars_are_no_formulas():
    figure = per_class(predictions(torch.eye(2), torch.arange(2)), ["a$_$", "b"])
    figure.draw_without_rendering()  # as a notebook does, outside the house style
    assert {label.get_text() for label in figure.axes[1].get_yticklabels()} == {"a$_$", "b"}


CLASSES = ["a", "b", "c"]


def pictures(count):
    return torch.zeros(count, 3, 4, 4, dtype=torch.uint8)


def test_soft_targets_shows_a_sure_a_close_and_a_wrong_prediction():
    logits = torch.tensor([[2.0, 0, 0], [9.0, 0, 0], [1.0, 0.9, 0], [5.0, 0, 0], [1.0, 0, 0]])
    teacher, student = (predictions(z, torch.tensor([0, 0, 0, 2, 1])) for z in (logits, -logits))
    figure = soft_targets(pictures(5), teacher, student, CLASSES, 2.0)
    shown = list(zip(figure.axes[::2], figure.axes[1::2], strict=True))
    assert [picture.get_title() for picture, _ in shown] == ["true: a", "true: a", "true: c"]
    titles = [bars.get_title(loc="left").partition(":")[0] for _, bars in shown]
    assert titles == ["The teacher is sure", "Two classes compete", "The teacher is wrong"]
    for (_, bars), image in zip(shown, (1, 2, 3), strict=True):
        heights = [bar.get_height() for bar in bars.patches]
        order = logits[image].argsort(descending=True, stable=True)
        expected = torch.cat([(z[image] / 2).softmax(0)[order] for z in (logits, -logits)]).tolist()
        assert sorted(heights) == pytest.approx(sorted(expected), rel=1e-5)
    assert [label.get_text() for label in shown[1][1].get_xticklabels()] == CLASSES
    assert not figure.get_supxlabel()


def test_soft_targets_without_a_mistake_says_so():
    logits = torch.tensor([[9.0, 0], [1.0, 0.9]])  # two classes
    right = predictions(logits, torch.tensor([0, 0]))
    figure = soft_targets(pictures(2), right, right, ["a", "b"], 4.0)
    assert len(figure.axes) == 4
    assert (
        figure.get_supxlabel() == "The teacher predicts all of these 2 images correctly, so no image where it is wrong."
    )


@pytest.mark.parametrize(("label", "title"), [(0, "The teacher is sure"), (1, "The teacher is wrong")])
def test_soft_targets_of_one_image(label, title):
    one = predictions(torch.tensor([[9.0, 0]]), torch.tensor([label]))
    figure = soft_targets(pictures(1), one, one, ["a", "b"], 4.0)
    (_, bars) = figure.axes
    assert bars.get_title(loc="left").startswith(title)
    assert len(figure.get_supxlabel().splitlines()) == 2


def test_soft_targets_always_show_the_true_class():
    logits = torch.arange(10.0)[None].repeat(2, 1)
    wrong = predictions(logits, torch.tensor([0, 1]))
    _, bars = soft_targets(pictures(2), wrong, wrong, list("abcdefghij"), 1.0, top=3).axes
    assert [label.get_text() for label in bars.get_xticklabels()] == ["j", "i", "a"]

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


def test_soft_targets_shows_the_images_of_which_the_teacher_is_least_sure():
    logits = torch.tensor([[9.0, 0, 0], [1.0, 0.9, 0], [5.0, 0, 0]])
    teacher, student = predictions(logits, torch.tensor([0, 1, 2])), predictions(-logits, torch.tensor([0, 1, 2]))
    figure = soft_targets(torch.zeros(3, 3, 4, 4, dtype=torch.uint8), teacher, student, ["a", "b", "c"], 2.0, count=1)
    picture, bars = figure.axes
    assert picture.get_title() == "b"
    heights = [bar.get_height() for bar in bars.patches]
    assert heights == pytest.approx(torch.cat([(z / 2).softmax(0) for z in (logits[1], -logits[1])]).tolist(), rel=1e-5)
    assert [label.get_text() for label in bars.get_xticklabels()] == ["a", "b", "c"]

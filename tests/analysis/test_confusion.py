"""The confusion matrix, its figure and the table of classes equal counts by hand."""

import math

import pytest
import torch

from kdhelpers.analysis import class_frame, confusion_frame, confusion_map, confusion_matrix
from kdhelpers.evaluation.metrics import per_class_pct
from kdhelpers.evaluation.predictions import Predictions


def predictions(taken_for, labels, classes):
    logits = torch.nn.functional.one_hot(torch.tensor(taken_for), classes).float()
    return Predictions(logits, logits, torch.tensor(labels), torch.arange(len(labels)))


def test_counts_equal_a_loop_and_its_diagonal_the_accuracy_of_each_class():
    generator = torch.Generator().manual_seed(0)
    labels, taken = (torch.randint(0, 7, (200,), generator=generator).tolist() for _ in range(2))
    found = confusion_matrix(predictions(taken, labels, 7))
    by_hand = [[0] * 7 for _ in range(7)]
    for label, guess in zip(labels, taken, strict=True):
        by_hand[label][guess] += 1
    assert found.tolist() == by_hand
    shares = 100 * found.diagonal().double() / found.sum(1)
    assert torch.equal(shares, per_class_pct(predictions(taken, labels, 7)))


def test_names_with_dollars_are_no_formulas():
    figure = confusion_map(predictions([0, 0, 1, 1], [0, 0, 0, 1], 2), ["a$_$", "b"])
    figure.draw_without_rendering()  # as a notebook does, outside the house style
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a$_$", "b"]


def test_the_picture_writes_shares_out_and_leaves_a_class_without_images_blank():
    figure = confusion_map(predictions([0, 0, 1, 1], [0, 0, 0, 1], 3), ["a", "b", "empty"])
    axes = figure.axes[0]
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [
        ((0, 0), "67"),
        ((1, 0), "33"),
        ((1, 1), "100"),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "empty"]
    assert all(math.isnan(share) for share in axes.images[0].get_array().filled(math.nan)[2])


def test_many_classes_are_drawn_without_their_names():
    figure = confusion_map(predictions(list(range(30)), list(range(30)), 30), [f"class {c}" for c in range(30)])
    assert not figure.axes[0].texts
    assert "class 0" not in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_the_frame_behind_the_picture_bears_classes_of_one_name():
    frame = confusion_frame(predictions([0, 1, 1], [0, 1, 0], 2), ["crane", "crane"])
    assert frame.columns.tolist() == ["class", "crane", "crane"]
    assert frame.iloc[0].tolist() == ["crane", 1, 1]


def test_classes_stand_in_rising_order_with_what_they_are_mistaken_for():
    student = predictions([0, 2, 2, 1, 2, 2], [0, 0, 0, 1, 2, 2], 4)
    teacher = predictions([0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 2, 2], 4)
    frame = class_frame({"student": student, "teacher": teacher}, ["a", "b", "c", "empty"])
    assert frame["class"].tolist() == ["a", "b", "c", "empty"]
    assert frame["images"].tolist() == [3, 1, 2, 0]
    assert frame["student (%)"].tolist()[:3] == pytest.approx([100 / 3, 100, 100])
    assert frame["teacher (%)"].tolist()[:3] == [100, 100, 50]
    assert frame["mistaken for"].tolist() == ["c", "–", "–", "–"]
    assert frame["of the class (%)"].tolist()[:3] == pytest.approx([200 / 3, 0, 0])
    assert math.isnan(frame["student (%)"][3])

"""Predicted labels of unlabelled images: counts per class and their figure."""

import math
from types import SimpleNamespace

import pytest
import torch

from kdhelpers.analysis import label_figure, label_frame

PREDICTIONS = SimpleNamespace(
    probabilities=torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.125, 0.75, 0.125], [0.5, 0.5, 0.0]]),
    class_names=["a", "b", "never"],
)


def test_the_frame_counts_by_hand():
    frame = label_frame(PREDICTIONS)
    assert frame["class"].tolist() == ["a", "b", "never"]
    assert frame["predicted"].tolist() == [2, 2, 0]  # a tie goes to the first class, as argmax has it
    assert frame["share (%)"].tolist() == [50, 50, 0]
    assert frame["expected"].tolist() == [1.125, 2.5, 0.375]
    assert frame["mean confidence (%)"].tolist()[:2] == [50, 87.5]
    assert math.isnan(frame["mean confidence (%)"][2])


@pytest.mark.parametrize("classes", [3, 30])
def test_the_figure_shows_counts_and_confidences(classes):
    probabilities = torch.randn(50, classes, generator=torch.Generator().manual_seed(0)).softmax(1)
    figure = label_figure(SimpleNamespace(probabilities=probabilities, class_names=[f"c{k}" for k in range(classes)]))
    counts, sureness = figure.axes
    assert [bar.get_height() for bar in counts.patches] == probabilities.argmax(1).bincount(minlength=classes).tolist()
    assert sum(bar.get_height() for bar in sureness.patches) == 50  # none falls out of the histogram's range
    [even] = [line.get_ydata()[0] for line in counts.lines]
    assert even == 50 / classes
    named = [label.get_text() for label in counts.get_xticklabels()]
    assert ("c0" in named) == (classes <= 20)
    assert f"mean {100 * probabilities.amax(1).mean():.1f} %" in sureness.get_legend().get_texts()[0].get_text()

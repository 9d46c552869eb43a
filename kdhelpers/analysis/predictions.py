"""Figures and tables of predictions: accuracy per class, soft targets, predicted labels."""

import math

import pandas
import torch
from torch import Tensor

from kdhelpers.analysis.panels import MAX_NAMED_CLASSES, name_columns
from kdhelpers.display.style import PALETTE, new_figure, styled
from kdhelpers.evaluation.metrics import per_class_pct
from kdhelpers.evaluation.predictions import Predictions

WORST = 10  # classes
CONFIDENCE_BINS = 20
CORRECT, WRONG = "#1B7F3B", "#B03A2E"


def per_class(predictions: Predictions, class_names):
    """Accuracy of every class in percent, in rising order; the ten worst classes by name."""
    accuracy = per_class_pct(predictions)
    order = accuracy.nan_to_num(nan=-1).argsort()
    worst = order[:WORST].flip(0)  # barh draws upwards
    mean = 100 * predictions.correct.double().mean().item()
    with styled():
        figure = new_figure(7.5, 2.8)
        every, named = figure.subplots(1, 2, width_ratios=[3, 2])
        every.bar(range(len(order)), accuracy[order].tolist(), width=1, color=PALETTE[0])
        every.axhline(mean, color="0.2", linewidth=1, linestyle=":")
        every.set(title=f"all {len(order)} classes; dotted: all images, {mean:.1f} %", xlabel="class, by accuracy")
        every.set_ylabel("test top-1 accuracy (%)")
        every.grid(False, axis="x")
        named.barh(range(len(worst)), accuracy[worst].tolist(), color=PALETTE[1])
        named.set_yticks(range(len(worst)), [str(class_names[label]) for label in worst])
        named.set(title="by name" if len(order) <= WORST else f"the {WORST} worst", xlabel="test top-1 accuracy (%)")
        named.grid(False, axis="y")
    return figure


def soft_targets(
    images: Tensor, teacher: Predictions, student: Predictions, class_names, temperature: float, top: int = 5
):
    """Three test images, with both networks' probabilities softmax(z / temperature).

    The lead of an image is the difference between the teacher's two largest probabilities. Shown are the correctly
    predicted image of the largest lead (the teacher is sure), the correctly predicted image of the smallest lead (two
    classes compete), and the mistake of the largest lead (the teacher is wrong); of equal leads the first image. An
    image that does not exist is left out, and a line below says so.

    images: uint8 [N, 3, H, W] in the order of the predictions. Bars show the teacher's `top` classes, the last of them
    replaced by the true class if it is not among them; the true class is in green.
    """
    p_teacher, p_student = ((p.logits.double() / temperature).softmax(1) for p in (teacher, student))
    chosen, missing = _instructive(p_teacher, teacher.correct)
    with styled():
        figure = new_figure(7.0, 1.85 * len(chosen) + 0.25 * len(missing))
        grid = figure.subplots(len(chosen), 2, squeeze=False, width_ratios=[1, 3.2])
        for (picture, bars), (title, i) in zip(grid, chosen.items(), strict=True):
            true = int(teacher.labels[i])
            picture.imshow(images[i].permute(1, 2, 0))
            picture.set_axis_off()
            picture.set_title(f"true: {class_names[true]}", color=CORRECT, fontsize=9)
            _probabilities(bars, p_teacher[i], p_student[i], class_names, top, true)
            bars.set_title(title, loc="left", fontsize=9)
            bars.set_ylabel(f"probability, T = {temperature:g}", fontsize=8)
        grid[0, 1].legend(loc="upper right")
        figure.supxlabel("\n".join(missing), fontsize=8, x=0.01, ha="left")
    return figure


def _instructive(probabilities: Tensor, correct: Tensor) -> tuple[dict[str, int], list[str]]:
    """Title -> index of the images that `soft_targets` shows, and a sentence for each that does not exist."""
    largest = probabilities.topk(2, 1).values
    order = (largest[:, 0] - largest[:, 1]).argsort(descending=True, stable=True)
    right, wrong = order[correct[order]].tolist(), order[~correct[order]].tolist()
    chosen = {"The teacher is sure: its largest lead in a correct prediction": right[:1]}
    chosen["Two classes compete: its smallest lead in a correct prediction"] = right[1:][-1:]
    chosen["The teacher is wrong: its largest lead in a wrong prediction"] = wrong[:1]
    images = f"of these {len(correct):,} images"
    reasons = [
        f"The teacher predicts none {images} correctly.",
        "There is no second correct prediction, so two classes compete for none of the images.",
        f"The teacher predicts all {images} correctly, so no image where it is wrong.",
    ]
    missing = [reason for reason, found in zip(reasons, chosen.values(), strict=True) if not found]
    return {title: found[0] for title, found in chosen.items() if found}, missing


def _probabilities(axes, teacher: Tensor, student: Tensor, class_names, top: int, true: int) -> None:
    classes = teacher.argsort(descending=True)[:top]
    if true not in classes:
        classes[-1] = true
    positions = torch.arange(len(classes)).double()
    for shift, network, colour, label in ((-0.2, teacher, "0.4", "teacher"), (0.2, student, PALETTE[0], "student")):
        axes.bar((positions + shift).tolist(), network[classes].tolist(), width=0.38, color=colour, label=label)
    axes.set_xticks(positions.tolist(), [class_names[label] for label in classes], fontsize=8)
    for tick, label in zip(axes.get_xticklabels(), classes.tolist(), strict=True):
        tick.set_color(CORRECT if label == true else "black")
    axes.set_ylim(0, 1.1 * max(teacher.max().item(), student.max().item(), math.ulp(1.0)))
    axes.grid(False, axis="x")


def label_frame(predictions):
    """A DataFrame with a row per class: class, predicted (images), share (%), expected, mean confidence (%) or NaN.

    predictions: `LabelPredictions`, or anything with `probabilities` [N, C] and `class_names`. expected is the sum of
    the class's probabilities; it differs from `predicted` if the network is uncertain.
    """
    confidence, label = predictions.probabilities.double().max(1)
    count = torch.bincount(label, minlength=len(predictions.class_names))
    total = torch.zeros(len(count), dtype=torch.float64).index_add_(0, label, confidence)
    return pandas.DataFrame(
        {
            "class": list(map(str, predictions.class_names)),
            "predicted": count.numpy(),
            "share (%)": (100 * count / len(label)).numpy(),
            "expected": predictions.probabilities.double().sum(0).numpy(),
            "mean confidence (%)": (100 * total / count).numpy(),  # 0 / 0 is NaN
        }
    )


def label_figure(predictions):
    """Two panels: images per predicted class, with the even share; a histogram of the confidence."""
    frame = label_frame(predictions)
    confidence = predictions.probabilities.amax(1)
    with styled():
        figure = new_figure(8.4, 3.2)
        classes, histogram = figure.subplots(1, 2)
        classes.bar(range(len(frame)), frame["predicted"], color=PALETTE[0], width=0.75)
        classes.axhline(len(confidence) / len(frame), color="black", linestyle="--", linewidth=1, label="even share")
        if len(frame) <= MAX_NAMED_CLASSES:
            name_columns(classes, frame["class"].tolist())
        else:
            classes.set_xlabel("class")
        classes.set(title="predicted classes", ylabel="images")
        classes.legend(loc="upper right")
        classes.grid(False, axis="x")
        bins = {"bins": CONFIDENCE_BINS, "range": (1 / len(frame), 1)}
        histogram.hist(confidence.numpy(), color=PALETTE[0], edgecolor="white", **bins)
        mean = confidence.mean().item()
        histogram.axvline(mean, color=PALETTE[1], linewidth=1.2, label=f"mean {100 * mean:.1f} %")
        histogram.set(title="confidence", xlabel="probability of the predicted class", ylabel="images")
        histogram.legend(loc="upper left")
        for axes in (classes, histogram):
            axes.margins(y=0.18)
    return figure

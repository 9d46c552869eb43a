"""Pictures of what networks predict: accuracy per class, softened class probabilities."""

import math

import torch

from kdhelpers.display.plots import PALETTE, new_figure, styled

NAMED = 10  # classes that get their name on the axis
NAMED_PREDICTED = 20  # the same, of predicted classes
BINS = 20  # of confidence
RIGHT, WRONG = "#1B7F3B", "#B03A2E"


def per_class(predictions, class_names):
    """Accuracy of every class in percent, in rising order, beside the ten worst classes by name."""
    from kdhelpers.evaluation.metrics import per_class_pct

    accuracy = per_class_pct(predictions)
    order = accuracy.nan_to_num(nan=-1).argsort()
    worst = order[:NAMED].flip(0)  # barh draws upwards
    mean = 100 * predictions.correct.double().mean().item()
    with styled():
        figure = new_figure(7.5, 2.8)
        every, named = figure.subplots(1, 2, width_ratios=[3, 2])
        every.bar(range(len(order)), accuracy[order].tolist(), width=1, color=PALETTE[0])
        every.axhline(mean, color="0.2", linewidth=1, linestyle=":")
        every.set(title=f"all {len(order)} classes; dotted: all images, {mean:.1f} %", xlabel="class, by accuracy")
        every.set_ylabel("test top-1 accuracy (%)")
        named.barh(range(len(worst)), accuracy[worst].tolist(), color=PALETTE[1])
        named.set_yticks(range(len(worst)), [str(class_names[c]) for c in worst])
        named.set(title=f"the {len(worst)} worst", xlabel="test top-1 accuracy (%)")
        for axes, direction in ((every, "x"), (named, "y")):
            axes.grid(False, axis=direction)
    return figure


def soft_targets(images, teacher, student, class_names, temperature: float, count: int = 4, top: int = 5):
    """The test images of which the teacher is least sure, beside both networks' softened probabilities.

    images: uint8 [N, 3, H, W] in the order of the two `Predictions`; both are softened at `temperature`. Titles give
    the true class, green where the student is right and red where it is wrong.
    """
    p_teacher, p_student = ((p.logits.double() / temperature).softmax(1) for p in (teacher, student))
    entropy = -(p_teacher * p_teacher.clamp(min=1e-300).log()).sum(1)
    chosen = entropy.argsort(descending=True)[:count].tolist()
    with styled():
        figure = new_figure(7.0, 1.5 * len(chosen))
        grid = figure.subplots(len(chosen), 2, squeeze=False, width_ratios=[1, 3])
        for (picture, bars), i in zip(grid, chosen, strict=True):
            picture.imshow(images[i].permute(1, 2, 0))
            picture.set_axis_off()
            picture.set_title(class_names[teacher.labels[i]], color=RIGHT if student.correct[i] else WRONG, fontsize=9)
            _probabilities(bars, p_teacher[i], p_student[i], class_names, top)
        grid[0, 1].legend(loc="upper right")
        grid[0, 1].set_title(f"class probabilities at T = {temperature:g}")
    return figure


def _probabilities(axes, teacher, student, class_names, top: int) -> None:
    classes = teacher.argsort(descending=True)[:top]
    places = torch.arange(len(classes)).double()
    axes.bar((places - 0.2).tolist(), teacher[classes].tolist(), width=0.38, color="0.4", label="teacher")
    axes.bar((places + 0.2).tolist(), student[classes].tolist(), width=0.38, color=PALETTE[0], label="student")
    axes.set_xticks(places.tolist(), [class_names[c] for c in classes], fontsize=8)
    axes.set_ylim(0, 1.1 * max(teacher.max().item(), student.max().item(), math.ulp(1.0)))
    axes.grid(False, axis="x")


def label_frame(answers):
    """A DataFrame with a row per class: class, predicted (images), share (%), expected, mean confidence (%) or NaN.

    answers: anything with `probabilities` [N, C] and `class_names`. A class's expected number is the sum of its
    probabilities: where it differs much from `predicted`, the network is torn between classes.
    """
    import pandas

    confidence, label = answers.probabilities.double().max(1)
    count = torch.bincount(label, minlength=len(answers.class_names))
    total = torch.zeros(len(count), dtype=torch.float64).index_add_(0, label, confidence)
    return pandas.DataFrame(
        {
            "class": list(map(str, answers.class_names)),
            "predicted": count.numpy(),
            "share (%)": (100 * count / len(label)).numpy(),
            "expected": answers.probabilities.double().sum(0).numpy(),
            "mean confidence (%)": (100 * total / count).numpy(),  # 0 / 0 is NaN
        }
    )


def label_figure(answers):
    """Two panels: images per predicted class, against an even share; how many images at which confidence."""
    frame = label_frame(answers)
    confidence = answers.probabilities.amax(1)
    with styled():
        figure = new_figure(8.4, 3.2)
        classes, sureness = figure.subplots(1, 2)
        places = range(len(frame))
        classes.bar(places, frame["predicted"], color=PALETTE[0], width=0.75)
        classes.axhline(len(confidence) / len(frame), color="black", linestyle="--", linewidth=1, label="even share")
        if len(frame) <= NAMED_PREDICTED:
            long = frame["class"].str.len().max() > 3
            tilted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
            classes.set_xticks(places, frame["class"], **tilted)
        classes.set(title="predicted classes", ylabel="images", xlabel="" if len(frame) <= NAMED_PREDICTED else "class")
        classes.margins(y=0.18)
        classes.legend(loc="upper right")
        classes.grid(False, axis="x")
        sureness.hist(confidence.numpy(), bins=BINS, range=(1 / len(frame), 1), color=PALETTE[0], edgecolor="white")
        mean = confidence.mean().item()
        sureness.axvline(mean, color=PALETTE[1], linewidth=1.2, label=f"mean {100 * mean:.1f} %")
        sureness.set(title="confidence", xlabel="probability of the predicted class", ylabel="images")
        sureness.margins(y=0.18)
        sureness.legend(loc="upper left")
    return figure

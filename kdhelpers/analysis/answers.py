"""What a network says of images without labels: how often each class, and how surely; not whether it is right."""

from __future__ import annotations

from kdhelpers.display.plots import PALETTE, new_figure, styled

BINS = 20
NAMED = 20  # classes that get their names


def answer_frame(answers):
    """A DataFrame with a row per class: class, predicted (images), share (%), expected, mean confidence (%) or NaN.

    answers: anything with `probabilities` [N, C] and `class_names`. A class's expected number is the sum of its
    probabilities: where it differs much from `predicted`, the network is torn between classes.
    """
    import pandas
    import torch

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


def answer_figure(answers):
    """Two panels: images per predicted class, against an even share; how many images at which confidence."""
    frame = answer_frame(answers)
    confidence = answers.probabilities.amax(1)
    with styled():
        figure = new_figure(8.4, 3.2)
        classes, sureness = figure.subplots(1, 2)
        places = range(len(frame))
        classes.bar(places, frame["predicted"], color=PALETTE[0], width=0.75)
        classes.axhline(len(confidence) / len(frame), color="black", linestyle="--", linewidth=1, label="even share")
        if len(frame) <= NAMED:
            long = frame["class"].str.len().max() > 3
            tilted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
            classes.set_xticks(places, frame["class"], **tilted)
        classes.set(title="predicted classes", ylabel="images", xlabel="" if len(frame) <= NAMED else "class")
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

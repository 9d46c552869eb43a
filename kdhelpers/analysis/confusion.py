"""Confusion of classes: the matrix, its figure, a table of the classes."""

import pandas
import torch
from torch import Tensor

from kdhelpers.analysis.panels import MAX_NAMED_CLASSES, name_columns
from kdhelpers.display.style import new_figure, styled
from kdhelpers.evaluation.metrics import per_class_pct
from kdhelpers.evaluation.predictions import Predictions


def confusion_matrix(predictions: Predictions) -> Tensor:
    """int64 [C, C]: number of images by true class (row) and predicted class (column)."""
    classes = predictions.logits.shape[1]
    pairs = predictions.labels * classes + predictions.logits.argmax(1)
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def confusion_frame(predictions: Predictions, class_names):
    """`confusion_matrix` as a DataFrame: column `class` (true), then one per predicted class."""
    counts = pandas.DataFrame(confusion_matrix(predictions).numpy(), columns=list(class_names))
    counts.insert(0, "class", list(class_names), allow_duplicates=True)
    return counts


def confusion_map(predictions: Predictions, class_names):
    """The confusion matrix in percent of a row's images, blank for a class without images.

    Up to 20 classes have their names on the axes and their numbers in the cells.
    """
    counts = confusion_matrix(predictions).double()
    shares = 100 * counts / counts.sum(1, keepdim=True)  # NaN, which is drawn blank, for a class without images
    named = len(class_names) <= MAX_NAMED_CLASSES
    side = 2.2 + 0.36 * len(class_names) if named else 6.0
    with styled():
        figure = new_figure(side + 0.8, side)
        axes = figure.subplots()
        image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
        axes.set(xlabel="predicted class", ylabel="true class", title="test images (% of the true class)")
        axes.grid(False)
        figure.colorbar(image, ax=axes, shrink=0.8)
        if named:
            names = [str(name) for name in class_names]
            name_columns(axes, names)
            axes.set_yticks(range(len(names)), names)
            _write_shares(axes, shares)
    return figure


def _write_shares(axes, shares: Tensor) -> None:
    for row, column in (shares >= 0.5).nonzero().tolist():  # smaller shares would be clutter; NaN is not above
        share = shares[row, column].item()
        colour = "white" if share > 60 else "0.2"
        axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7, color=colour)


def class_frame(predictions: dict[str, Predictions], class_names):
    """A DataFrame with a row per class, in rising order of the first network's accuracy.

    predictions: a network's name -> its `Predictions` of one split. Columns: class, images, `<name> (%)` for each
    network; `mistaken for`, the class that the first network predicts most often for the class's misclassified images
    (– for none); `of the class (%)`, the share of these mistakes.
    """
    counts = confusion_matrix(next(iter(predictions.values())))
    most, worst = (counts - counts.diagonal().diag()).max(1)
    frame = pandas.DataFrame({"class": list(map(str, class_names)), "images": counts.sum(1).numpy()})
    for name, network in predictions.items():
        frame[f"{name} (%)"] = per_class_pct(network).numpy()
    mistakes = zip(worst.tolist(), most.tolist(), strict=True)
    frame["mistaken for"] = [str(class_names[label]) if count else "–" for label, count in mistakes]
    frame["of the class (%)"] = (100 * most / counts.sum(1)).numpy()
    return frame.sort_values(frame.columns[2], kind="stable", ignore_index=True)

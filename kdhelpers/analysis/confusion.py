"""Which classes a network takes for which: the counts, a picture of them, a table of the classes."""

import torch
from torch import Tensor

from kdhelpers.display.plots import new_figure, styled

NAMED = 20  # classes that get their names, and their numbers written out


def confusion_matrix(predictions) -> Tensor:
    """int64 [C, C]: how many images of the row's class the network takes for the column's."""
    classes = predictions.logits.shape[1]
    pairs = predictions.labels * classes + predictions.logits.argmax(1)
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def confusion_frame(predictions, class_names):
    """`confusion_matrix` as a DataFrame: column `class`, then one per class it is taken for."""
    import pandas

    counts = pandas.DataFrame(confusion_matrix(predictions).numpy(), columns=list(class_names))
    counts.insert(0, "class", list(class_names), allow_duplicates=True)
    return counts


def confusion_map(predictions, class_names):
    """The confusion matrix in percent of each row's images; a row of no images is blank.

    Up to 20 classes are named and their numbers written out.
    """
    counts = confusion_matrix(predictions).double()
    shares = 100 * counts / counts.sum(1, keepdim=True)  # NaN, which is drawn blank, for a class without images
    named = len(class_names) <= NAMED
    side = 2.2 + 0.36 * len(class_names) if named else 6.0
    with styled():
        figure = new_figure(side + 0.8, side)
        axes = figure.subplots()
        picture = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
        axes.set(xlabel="taken for", ylabel="class", title="test images (% of a class)")
        axes.grid(False)
        figure.colorbar(picture, ax=axes, shrink=0.8)
        if named:
            _write_out(axes, shares, [str(name) for name in class_names])
    return figure


def _write_out(axes, shares: Tensor, names: list[str]) -> None:
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names)
    for row in places:
        for column in places:
            share = shares[row, column].item()
            if share >= 0.5:  # smaller ones, and NaN, would only be clutter
                axes.text(
                    column,
                    row,
                    f"{share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if share > 60 else "0.2",
                )


def class_frame(named: dict, class_names):
    """A DataFrame with a row per class, in rising order of the first network's accuracy.

    named: what to call a network -> its `Predictions` of one split. Columns: class, images, `<name> (%)` for each
    network, and what the first takes most of the class's other images for (`mistaken for`, "–" for none), in how many
    percent of them all (`of the class (%)`).
    """
    import pandas

    from kdhelpers.evaluation.metrics import per_class_pct

    first = next(iter(named.values()))
    counts = confusion_matrix(first)
    mistakes = counts - counts.diagonal().diag()
    worst = mistakes.argmax(1).tolist()
    frame = pandas.DataFrame({"class": list(map(str, class_names)), "images": counts.sum(1).numpy()})
    for name, predictions in named.items():
        frame[f"{name} (%)"] = per_class_pct(predictions).numpy()
    most = mistakes.amax(1)
    frame["mistaken for"] = [str(class_names[c]) if n else "–" for c, n in zip(worst, most.tolist(), strict=True)]
    frame["of the class (%)"] = (100 * most / counts.sum(1)).numpy()
    return frame.sort_values(frame.columns[2], kind="stable", ignore_index=True)

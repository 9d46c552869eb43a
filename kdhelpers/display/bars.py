"""Test accuracies of settings as bars: a panel per network and budget."""

import math

from kdhelpers.display.colours import TEACHER, colour_of
from kdhelpers.display.curves import short_names
from kdhelpers.display.style import rows_that_fit, shorten, stacked_panels, styled
from kdhelpers.display.text import MARK, evidence_note, mark_meaning

ERROR = {"ecolor": "0.15", "capsize": 3, "elinewidth": 1}
MOST_PANELS = 12  # that fit on a screen
BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}


def bars(summary):
    """Test top-1 of every setting of a `results.summarize` frame: mean, standard deviation as whisker, n in the label.

    A panel has the students of one data set, network and budget, or the teachers of a data set. A bar starts at zero,
    so its length is the accuracy; a single run has no whisker. The colour is the method's; teachers are black. If the
    settings do not fit on a screen, each panel has its best ones, and the picture has the number of those left out.
    """
    panels, left_out = _that_fit(_panels(summary))
    with styled():
        figure, grid = stacked_panels([len(rows) for rows in panels.values()] or [1])
        for axes, (title, rows) in zip(grid, panels.items(), strict=False):
            _draw(axes, rows.iloc[::-1])  # barh draws upwards
            axes.set_title(title, loc="left", fontsize=9)
        reach = summary["test_top1_pct"] + summary["test_top1_std_pct"].fillna(0)
        grid[-1].set_xlim(0, 1.1 * reach.max() if len(summary) else 100)
        grid[-1].set_xlabel("test top-1 accuracy (%), mean ± std over n seeds")
        if notes := list(filter(None, [evidence_note(summary["dataset"]), mark_meaning(summary["notes"]), left_out])):
            figure.suptitle(" · ".join(notes), color="#B03A2E", fontsize=9)
    return figure


def _panels(summary) -> dict:
    """Title -> rows, named by what the title does not have."""
    many = summary["dataset"].nunique() > 1
    panels = {}
    for (dataset, role), rows in summary.groupby(["dataset", "role"], sort=False):
        head = f"{dataset}: " if many else ""
        if role == "teacher":
            panels[head + "teachers"] = rows.assign(label=[_teacher(row) for row in rows.to_dict("records")])
            continue
        for (model, budget), students in rows.groupby(["model", "budget"], sort=False):
            panels[f"{head}{model}, {budget}"] = students
    return panels


def _that_fit(panels: dict) -> tuple[dict, str]:
    """The panels of most settings, of each the best settings, and a text about those left out."""
    largest = sorted(panels, key=lambda title: -len(panels[title]))[:MOST_PANELS]
    most = rows_that_fit([len(panels[title]) for title in largest]) if panels else 0
    shown = {}
    for title, rows in panels.items():
        if title in largest:
            best = rows.nlargest(most, "test_top1_pct")
            cut = len(best) < len(rows)
            shown[title + f" (best {most} of {len(rows)})" * cut] = best if cut else rows
    others = sum(map(len, panels.values())) - sum(map(len, shown.values()))
    return shown, f"settings that are left out: {others}; the table has all" if others else ""


def _teacher(row: dict) -> str:
    label = row["label"].removeprefix("teacher")  # what distinguishes it, or "untrained teacher"
    return f"{row['model']}{', ' * label.startswith('u')}{label}, {row['budget']}"


def _draw(axes, rows) -> None:
    for place, row in enumerate(rows.to_dict("records")):
        _bar(axes, place, row, TEACHER if row["role"] == "teacher" else colour_of(row["label"]))
    axes.set_yticks(range(len(rows)), [shorten(label, 60) for label in _labels(rows)], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(False, axis="y")


def _labels(rows) -> list[str]:
    """Short names with n, and the teacher of settings that would read the same."""
    alike = rows.duplicated("label", keep=False)
    labels = [
        f"{label} from {teacher}" if same and teacher else label
        for label, teacher, same in zip(rows["label"], rows["teacher"], alike, strict=True)
    ]
    names = short_names(labels)
    return [f"{names[label]} (n = {n})" for label, n in zip(labels, rows["n"], strict=True)]


def _bar(axes, place: int, row: dict, colour: str) -> None:
    mean, spread = row["test_top1_pct"], row["test_top1_std_pct"]
    whisker = None if math.isnan(spread) else spread
    axes.barh(place, mean, height=0.62, color=colour, xerr=whisker, error_kw=ERROR)
    text, end = f"{mean:.1f}{MARK * bool(row['notes'])}", (mean + (whisker or 0), place)
    axes.annotate(text, end, xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, bbox=BOX)

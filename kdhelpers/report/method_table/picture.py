"""The picture "gain against cost": a point per setting, in the colour and with the marker of its method."""

from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWNBASE

from kdhelpers.display.colours import EMBEDDINGS, LOGITS, MAPS, NO_TEACHER, OWN, VIEWS, look_of
from kdhelpers.display.placing import place_labels
from kdhelpers.display.style import new_figure, styled
from kdhelpers.display.text import MARK, evidence_note, mark_meaning, signed_text
from kdhelpers.report.method_table.frame import CONTROL

NAMES = {
    LOGITS: "reads the teacher's logits",
    EMBEDDINGS: "reads its embeddings",
    MAPS: "reads its feature maps",
    VIEWS: "several views, mixed or unlabelled images",
    NO_TEACHER: "has no teacher",
    OWN: "registered by you",
    CONTROL: "hollow: a control",
}
POINT = {"markersize": 5, "capsize": 2, "elinewidth": 0.8, "markeredgewidth": 0.8}
CARET = CARETDOWNBASE  # a gain below the axis
TICKS = (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
OUTLIER = 3.0  # ranges of the middle half of the gains below their first quartile


def picture(frame):
    """The frame of `with_costs` as a Figure: time of a step relative to KD, and the paired gain with its ± std.

    Methods without a gain or a cost are left out. The student without a teacher lies at gain 0. A gain far below all
    others stands at the lower edge, with its value.
    """
    shown = frame.assign(gain=frame["gain_points"].where(~_is_baseline(frame), 0.0))
    shown = shown.dropna(subset=["gain", "step_ratio"])
    with styled():
        figure = new_figure(9.0, 4.2 + 0.07 * len(shown))
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_xlabel("time of a training step, relative to KD")
        axes.set_ylabel("gain in test accuracy over the student alone (points)")
        if len(shown):
            _draw(axes, shown)
    return figure


def _is_baseline(frame):
    return frame["run"].map(lambda run: run["method"] == "si").astype(bool)


def _draw(axes, frame) -> None:
    low = _lowest(frame["gain"])
    heights, spreads = frame["gain"].clip(lower=low), frame["gain_std_points"].astype(float).fillna(0.0)
    spreads = spreads.where(frame["gain"] >= low, 0.0)
    looks = [look_of(run["method"]) for run in frame["run"]]
    rows = zip(frame["step_ratio"], heights, spreads, looks, frame["gain"], frame["family"], strict=True)
    for x, y, spread, look, gain, kind in rows:
        face = "white" if kind == CONTROL else look.colour
        marker = CARET if gain < low else look.marker
        style = {"marker": marker, "linestyle": "none", "color": look.colour, "markerfacecolor": face}
        axes.errorbar([x], [y], yerr=spread or None, **style, **POINT)
    _limits(axes, frame["step_ratio"], heights, spreads)
    axes.axhline(0, color="0.3", linewidth=1, zorder=0.9)
    axes.axvline(1, color="0.3", linewidth=0.8, linestyle=":", zorder=0.9)
    _describe(axes, frame)
    texts = [
        name + MARK * bool(notes) + (f" ({signed_text(gain, 1)})" if gain < low else "")
        for name, notes, gain in zip(frame["method"], frame["notes"], frame["gain"], strict=True)
    ]
    place_labels(
        axes,
        list(zip(frame["step_ratio"], heights, strict=True)),
        texts,
        [look.colour for look in looks],
        list(spreads),
    )


def _lowest(gains) -> float:
    """Where gains are drawn that lie far below the others: a little below the lowest of these."""
    first, third = gains.quantile(0.25), gains.quantile(0.75)
    others = gains[gains >= first - OUTLIER * (third - first)]
    return min(others.min(), 0.0) - 0.1 * (others.max() - others.min()) - 0.5


def _limits(axes, ratios, heights, spreads) -> None:
    """Room for labels; ticks at plain numbers."""
    bottom, top = (heights - spreads).min(), (heights + spreads).max()
    room = 0.05 * max(top - bottom, 1.0)
    axes.set_ylim(bottom - room, top + room)
    low, high = 0.88 * ratios.min(), 1.3 * ratios.max()
    axes.set_xlim(low, high)
    ticks = [tick for tick in TICKS if low < tick < high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _describe(axes, frame) -> None:
    first, counts = frame.iloc[0], sorted(set(frame["gain_n"].dropna().astype(int)))
    seeds = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) if counts else "0"
    title = f"{first['dataset']}: {first['teacher']} teaches {first['student']}, {first['budget']}"
    axes.set_title(title, loc="left")
    axes.figure.legend(handles=_families(frame), loc="outside upper left", ncols=3)
    notes = [f"mean ± std of the gain, seeds per setting: {seeds}; times measured in turns in one run"]
    notes += [mark_meaning(frame["notes"]), evidence_note(frame["dataset"])]
    axes.figure.supxlabel("\n".join(filter(None, notes)), fontsize=8, color="0.3")


def _families(frame) -> list:
    """A handle for each family, in the colour of its first method here; and for controls, if there are any."""
    first = {look.family: look.colour for look in (look_of(run["method"]) for run in frame["run"][::-1])}
    colours = {family: first.get(family) for family in NAMES} | {CONTROL: "0.4" * (CONTROL in set(frame["family"]))}
    faces = colours | {CONTROL: "white"}
    return [
        Line2D([], [], marker="o", linestyle="none", color=colour, markerfacecolor=faces[family], label=NAMES[family])
        for family, colour in colours.items()
        if colour
    ]

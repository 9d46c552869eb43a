"""The picture of a study: held-out accuracy by trial, with the best so far, a colour per method."""

from kdhelpers.display.colours import look_of
from kdhelpers.display.curves import end_text
from kdhelpers.display.placing import label_ends
from kdhelpers.display.style import LINES, new_figure, styled
from kdhelpers.display.text import evidence_note
from kdhelpers.tuning.study import Study

SHIFT = 0.12  # of the points of neighbouring methods, in trials


def picture(study: Study, trials, held_out: int):
    """The frame of `table.trial_frame` as a Figure. A cross at the lower edge is a trial that failed."""
    with styled():
        figure = new_figure(6.4, 3.6)
        figure.get_layout_engine().set(w_pad=0.1)  # a text's width depends on the resolution
        axes = figure.subplots()
        ends, looks = [], [look_of(study.runs[key].method) for key in study.runs]
        for number, (label, own) in enumerate(trials.groupby("method", sort=False)):
            look, earlier = looks[number], [other.colour for other in looks[:number]]
            x = own["trial"] + SHIFT * (number - (len(looks) - 1) / 2)
            line = LINES[earlier.count(look.colour) % len(LINES)]
            axes.plot(x, own["val_top1_pct"], look.marker, color=look.colour, markersize=4, alpha=0.8, label=label)
            axes.step(x, own["best_so_far_pct"], where="post", color=look.colour, linestyle=line, linewidth=1.2)
            failed = x[own["status"] == "failed"]
            axes.plot(failed, [0.02] * len(failed), "x", color=look.colour, transform=axes.get_xaxis_transform())
            if own["best_so_far_pct"].notna().any():
                ends.append((x.iloc[-1], own["best_so_far_pct"].iloc[-1], end_text(label), look.colour))
        axes.set_xlabel("trial (0: the start setting)")
        axes.set_ylabel("held-out top-1 (%)")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.margins(x=0.04)
        run = next(iter(study.runs.values()))
        title = f"{run.dataset}: {run.model}, {run.epochs} epochs per trial, {held_out:,} held-out training images"
        axes.set_title(title, loc="left", fontsize=9)
        notes = ["a point per trial, a line for the best so far, a cross for a trial that failed"]
        figure.supxlabel("\n".join(filter(None, [*notes, evidence_note([run.dataset])])), fontsize=8, color="0.3")
        label_ends({axes: ends})
    return figure

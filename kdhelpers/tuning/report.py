"""The end of a study as text, with its files: picture, data, summary, profile."""

from kdhelpers import artifacts
from kdhelpers.display import plots
from kdhelpers.display.text import evidence_note
from kdhelpers.tuning.picture import picture
from kdhelpers.tuning.profile import shown, write_profile
from kdhelpers.tuning.study import Study
from kdhelpers.tuning.table import summary_frame, summary_rows, trial_frame


def report(study: Study, held_out: int) -> str:
    """Write plots/tuning_<name>.png and .csv (trials), tuning_<name>_methods.csv, and the profile."""
    trials, summary, name = trial_frame(study), summary_frame(study), f"tuning_{study.name}"
    saved = plots.save(picture(study, trials, held_out), name, trials)
    table = artifacts.folder("plots") / f"{name}_methods.csv"
    artifacts.write_atomic(table, summary.to_csv(index=False).encode())
    profile, dataset = write_profile(study), next(iter(study.runs.values())).dataset
    files = {"trials": artifacts.record_path(study.trial_name("", 0)).parent, "picture": saved, "table": table}
    lines = [
        aligned(summary_rows(summary)),
        f"Held-out top-1 in % on {held_out:,} training images; first: trial 0, spread: standard deviation over trials.",
        *filter(None, [_unfinished(study), evidence_note([dataset])]),
        "",
        *(f"  {content:<8} {shown(path)}" for content, path in files.items()),
        f"  {'profile':<8} {shown(profile)}",
        "next:",
        f"  python -m kdhelpers suite --profile {shown(profile)} --seeds 0 1 2",
    ]
    return "\n".join(lines)


def _unfinished(study: Study) -> str:
    left = study.open_trials()
    waiting = "trials have" if left > 1 else "trial has"
    return f"{left} {waiting} not ended: another process trains; the same command shows all later." * bool(left)


def aligned(rows: list[tuple]) -> str:
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in texts)

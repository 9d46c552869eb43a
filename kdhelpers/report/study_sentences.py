"""Two sentences on the result of a study, from the numbers that were saved with its picture, or from the stored runs.

Each function takes a frame of numbers, or the settings and comparisons of the gallery, and returns sentences.
"""

import json
from itertools import groupby

from kdhelpers.display.text import signed_text
from kdhelpers.report.labels import method_title, optimizer_title

FULL_EPOCHS = 200  # from here on a budget counts as a full one


def none(*_) -> list[str]:
    return []


def gains(frame) -> list[str]:
    """A row per method and seed, with `gain_points`."""
    means = _means(frame, "method", "gain_points")
    always = (frame.groupby("method")["gain_points"].min() > 0).tolist()
    verb = "gains most" if means.iloc[0] > 0 else "loses least"
    return [
        f"{means.index[0]} {verb}: {signed_text(means.iloc[0])} points over the student alone, mean over "
        f"{_seeds(frame)}.",
        f"{sum(always)} of {len(always)} settings gain{'s' * (sum(always) == 1)} with every seed.",
    ]


def costs(frame) -> list[str]:
    """A row per method, with its gain and the time of a step; a version before 0.1 wrote paired_gain_points."""
    column = "gain_points" if "gain_points" in frame else "paired_gain_points"
    points = _means(frame, "method", column)
    most, least = points.index[0], points.index[-1]
    high, low = signed_text(points[most]), signed_text(points[least])
    sentences = [f"The gain of {most} is the largest ({high} points), that of {least} the smallest ({low})."]
    steps = _means(frame, "method", "step_ratio") if "step_ratio" in frame else ()
    if len(steps) > 1:
        cheap, dear = (f"{steps[name]:.2g} with {name}" for name in (steps.index[-1], steps.index[0]))
        sentences.append(f"The time of a training step, relative to KD, is {cheap} and {dear}.")
    return sentences


def controls(frame) -> list[str]:
    """A row per setting: its gain over the student alone, and over its placebo with shuffled outputs."""
    rows = frame.dropna(subset=["shuffled_placebo_gain_points", "gain_points"])
    own = rows.sort_values("gain_points", ascending=False).iloc[0]
    real = signed_text(own["shuffled_placebo_gain_points"])
    return [
        f"{own['label']} changes the accuracy of the student alone by {signed_text(own['gain_points'])} points.",
        f"Over its placebo with shuffled outputs the difference is {real} points: the part that needs the image.",
    ]


def capacity(frame) -> list[str]:
    """A row per teacher and seed, with the accuracies of student and teacher."""
    students, teachers = _means(frame, "teacher", "student_top1_pct"), _means(frame, "teacher", "teacher_top1_pct")
    reached = ", ".join(f"{students[name]:.2f} % ({name})" for name in students.index)
    best, strongest = students.drop("no teacher", errors="ignore").index[0], teachers.index[0]
    same = "It is also" if best == strongest else f"It is not {strongest},"
    return [
        f"The student's accuracy by teacher, measured again for the picture, mean over {_seeds(frame)}: {reached}.",
        f"The best student has the teacher {best}. {same} the most accurate teacher ({teachers[strongest]:.2f} %).",
    ]


def colour(frame) -> list[str]:
    """A row per network, strength of the jitter and seed, with the accuracy that the jitter costs."""
    strength = frame["strength"].iloc[-1]  # the strongest is the last
    strong = frame[frame["strength"] == strength]
    drops = _means(strong[strong["seed"].notna()], "model", "drop_pct")
    sentences = [
        f"With {strength} jitter of the test images the students lose {drops.iloc[-1]:.1f} points ({drops.index[-1]}) "
        f"to {drops.iloc[0]:.1f} points ({drops.index[0]}), mean over {_seeds(strong)}."
    ]
    teachers = _means(strong[strong["seed"].isna()], "model", "drop_pct")
    losses = " and ".join(f"{drop:.1f} points ({name})" for name, drop in teachers.items())
    return sentences + ([f"Single runs lose {losses}."] if losses else [])


def distribution(frame) -> list[str]:
    """A row per student and seed, with its divergence from the teacher and the share of same predictions."""
    kl, agreement = _means(frame, "student", "kl_nats"), _means(frame, "student", "agreement_pct")
    return [
        f"{kl.index[-1]} is nearest to its teacher: a KL of {kl.iloc[-1]:.3f} nats, mean over {_seeds(frame)}; "
        f"{kl.index[0]} is farthest: {kl.iloc[0]:.3f}.",
        f"{agreement.index[0]} predicts the teacher's class most often, for {agreement.iloc[0]:.1f} % of the test "
        f"images; {agreement.index[-1]} least often, for {agreement.iloc[-1]:.1f} %.",
    ]


def attention(frame) -> list[str]:
    """A row per student and seed, with the correlation of its Grad-CAM maps with the teacher's."""
    is_chance = frame["student"].str.startswith("chance")
    means, chance = _means(frame[~is_chance], "student", "correlation"), frame.loc[is_chance, "correlation"]
    floor = f"; a teacher's map of another image gives {chance.mean():.2f}" if len(chance) else ""
    return [
        f"The maps of {means.index[0]} are most like the teacher's: a correlation of {means.iloc[0]:.2f}, mean over "
        f"{_seeds(frame)} and {frame['n'].max():.0f} test images.",
        f"The maps of {means.index[-1]} are least like them: {means.iloc[-1]:.2f}{floor}.",
    ]


def embeddings(frame) -> list[str]:
    """A row per network and image: points on a sphere, and the share of the variance that they keep."""
    kept = _means(frame, "network", "kept_pct")
    return [
        f"The spheres show {frame['index'].nunique()} test images of {frame['label'].nunique()} classes, the same for "
        f"each network.",
        f"Their three directions hold {kept.iloc[-1]:.0f} % ({kept.index[-1]}) to {kept.iloc[0]:.0f} % "
        f"({kept.index[0]}) of the variance.",
    ]


def unlabelled(settings, comparisons) -> list[str]:
    found = [one for one in comparisons if any(student.row["run"].get("unlabelled") for student in one.students)]
    return [_best_of(one) for one in found]


def full_budget(settings, comparisons) -> list[str]:
    found = [one for one in comparisons if (one.best.row["run"].get("epochs") or 0) >= FULL_EPOCHS]
    return [_best_of(one) for one in found]


def optimisers(settings, comparisons) -> list[str]:
    """A sentence per data set, pair and method that several optimisers trained."""
    students = [one for one in settings if one.is_student and not one.is_control and one.row["run"].get("optimizer")]
    place = lambda one: (str(one.row["dataset"]), one.pair, _common(one.row["run"]))  # noqa: E731
    sentences = []
    for (dataset, pair, _), group in groupby(sorted(students, key=place), place):
        ranked = sorted(group, key=lambda one: -one.row["test_top1_pct"])
        if len({one.row["run"]["optimizer"] for one in ranked}) > 1:
            reached = ", ".join(
                f"{one.row['test_top1_pct']:.2f} % by {optimizer_title(one.row['run'])}" for one in ranked
            )
            sentences.append(f"{method_title(ranked[0].row['run']['method'])} on {dataset}, {pair}, reaches {reached}.")
    return sentences


def _common(run: dict) -> str:
    return json.dumps([run.get("method"), run.get("epochs"), run.get("hyperparameters")], sort_keys=True)


def _best_of(comparison) -> str:
    best, pair = comparison.best, f"{comparison.pair} on {comparison.dataset}, {comparison.budget}"
    gain = f"; gain: {best.gain_sentence}" if best.gain_sentence else ""
    return f"{pair}: {best.row['label']} is best. Test top-1, %: {comparison.accuracy}{gain}."


def _means(frame, name: str, value: str):
    """Mean of `value` per `name`, the largest first; ValueError without one."""
    means = frame.groupby(name)[value].mean().dropna().sort_values(ascending=False, kind="stable")
    if means.empty:
        raise ValueError(f"{value}: no number is saved")
    return means


def _seeds(frame) -> str:
    count = frame["seed"].nunique() if "seed" in frame else 1
    return f"{count} seed{'s' * (count != 1)}"

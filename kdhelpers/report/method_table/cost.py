"""What a step of each method of the table costs, relative to KD's, measured now on this machine."""

import math
import statistics

from kdhelpers import artifacts
from kdhelpers.methods import METHODS
from kdhelpers.models import rebuild_model
from kdhelpers.python_paths import mark
from kdhelpers.training.cost import StepCost, noise, step_costs
from kdhelpers.training.run import Run
from kdhelpers.weights.load import describe_teacher

COLUMNS = "step_ratio step_ms student_images teacher_images kept_mib trained_parameters".split()


def with_costs(frame, rounds: int = 5, device: str | None = None):
    """The frame with COLUMNS: the median of `rounds` steps of each method, each timed next to a step of KD, on noise.

    step_ratio: time of a step, relative to KD with a live teacher; step_ms: in ms. student_images and teacher_images
    that the networks compute for a labelled image. kept_mib: tensors that a step keeps for its backward pass.
    trained_parameters: that the method trains with the student. A setting whose method is not in this package has NaN;
    with 0 rounds all have. Nothing is stored.
    """
    runs = {row["setting"]: _run(row) for row in frame.to_dict("records")}
    runs = {setting: run for setting, run in runs.items() if run is not None}
    if not runs or not rounds:
        return frame.assign(**dict.fromkeys(COLUMNS, math.nan))
    facts = artifacts.load_record(frame["name"].iloc[0])["data"]
    first = next(iter(runs.values()))
    data = noise(first.dataset, facts["train"], facts["image_size"], facts["classes"])
    reference = next((key for key, run in runs.items() if run.method == "lm" and not run.placebo), "KD")
    runs.setdefault(reference, _kd(first, mark(frame["teacher"].iloc[0])))
    costs = step_costs(runs, reference, _network(frame, facts), data, rounds, device)
    rows = [_row(costs.get(setting)) for setting in frame["setting"]]
    return frame.assign(**{column: [row.get(column, math.nan) for row in rows] for column in COLUMNS})


def _run(row: dict) -> Run | None:
    """The stored run as a Run of this package; None if its method or an option is not in this package any more."""
    stored = row["run"]
    if stored["method"] not in METHODS or METHODS[stored["method"]](**_options(stored)).uses_unlabelled:
        return None
    fields = {name: value for name, value in stored.items() if name in Run.model_fields}
    needs_teacher = METHODS[stored["method"]].needs_teacher
    return Run(**fields | {"teacher": mark(row["teacher"]) if needs_teacher else None, "pretrained": False})


def _kd(run: Run, teacher: str) -> Run:
    fields = run.model_dump(exclude={"method", "hyperparameters", "placebo", "teacher"})
    return Run(**fields, method="lm", teacher=teacher)


def _options(run: dict) -> dict:
    retired = METHODS[run["method"]].retired
    return {name: value for name, value in run["hyperparameters"].items() if name not in retired}


def _network(frame, data: dict):
    """An untrained teacher of the architecture; with the options of its weights, if they are stored here."""
    first = frame.iloc[0]
    try:
        options = describe_teacher(first["run"].get("teacher") or first["teacher"], first["dataset"])["model_options"]
    except (FileNotFoundError, KeyError):
        options = {}
    return rebuild_model(mark(first["teacher"]), data["classes"], **{"image_size": data["image_size"], **options})


def _row(cost: StepCost | None) -> dict:
    if cost is None:
        return {}
    fields = "student_images", "teacher_images", "kept_mib", "trained_parameters"
    median = 1e3 * statistics.median(cost.seconds)
    return {"step_ratio": cost.ratio, "step_ms": median, **{name: getattr(cost, name) for name in fields}}

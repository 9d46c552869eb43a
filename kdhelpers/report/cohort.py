"""The stored networks that are compared: a teacher, and the students that were trained at one budget."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdhelpers import artifacts
from kdhelpers.data import load_data
from kdhelpers.display.progress import Progress
from kdhelpers.messages import inform
from kdhelpers.methods import METHODS
from kdhelpers.nearest import known_names
from kdhelpers.report.labels import run_title
from kdhelpers.report.results import results
from kdhelpers.training.controls import ensure_teacher, without_teacher
from kdhelpers.training.fit import fit
from kdhelpers.training.run import Run
from kdhelpers.weights.load import find_teacher, find_weights, read_weights, teacher_name


@dataclass(frozen=True)
class Cohort:
    """Names of artifacts. `students`: seed -> label -> name; a label means the same setting for every seed.

    `data` are the arguments of `load_data` for the students' training: image size and held-out share matter.
    """

    teacher: str
    students: dict[int, dict[str, str]]
    data: tuple


def stored_students(
    dataset: str, student: str, teacher: str, seeds: Sequence[int] = (0,), names: str = "", like: str = ""
) -> Cohort:
    """The stored students of one architecture, by seed: trained without a teacher or by `teacher`.

    All have one budget: that of the stored student `like`, else the one with most runs of these seeds, then the newest.
    A teacher that was trained again is another teacher. `names` (separated by spaces) picks runs of any budget and seed
    instead. Raises FileNotFoundError that names the notebooks to run if there are no such students.
    """
    teacher_artifact = teacher_name(teacher, dataset)
    frame = results(dataset)
    usable = frame[(frame["role"] == "student") & frame["identity"].map(_is_usable(frame))]
    if names:
        chosen = _picked(usable, names.split(), dataset)
    else:
        comparable = _of_the_budget_of(like, usable, dataset) if like else usable
        chosen = _of_one_budget(comparable, student, teacher_artifact, seeds)
    if chosen.empty:
        raise FileNotFoundError(
            f"no student {student} of seed {', '.join(map(str, seeds))} with its weights is stored for {dataset}; run "
            "the notebooks 02_independent_student to 07_crd first (or `python -m kdhelpers suite`)"
        )
    labels = short_labels(chosen.drop_duplicates("setting"))
    order = {method: place for place, method in enumerate(METHODS)}
    by_seed = {
        int(seed): {labels[row["setting"]]: row["name"] for row in group.to_dict("records")}
        for seed, group in chosen.sort_values("method", key=lambda m: m.map(order), kind="stable").groupby("seed")
    }
    return Cohort(teacher_artifact, by_seed, _data_arguments(chosen))


def ensure_students(
    run: Run, seeds: Sequence[int] = (0,), names: str = "", like: str = "", progress: Progress | None = None, **options
) -> Cohort:
    """`stored_students` of the run's data set, model and teacher. If its teacher has none, train two per seed now.

    These are the run itself, such as KD, and the same run without a teacher; a missing teacher is trained too. With
    `names` or `like` nothing is trained. options: further arguments of `fit`. Raises as `stored_students` and `fit` do.
    """
    wanted = (run.dataset, run.model, run.teacher, seeds, names)
    if names or like or _has_students(run, seeds):
        return stored_students(*wanted, like)
    inform(f"No student {run.model} of the teacher {run.teacher} is stored for {run.dataset}: two are trained now.")
    data = load_data(run.dataset, run.image_size, run.val_fraction, run.split_seed)
    run = ensure_teacher(run, data, progress)
    students = [Run(**run.model_dump() | {"seed": seed}) for seed in seeds]
    trained = [fit(one, data, progress=progress, **options) for own in students for one in (without_teacher(own), own)]
    return stored_students(*wanted, like=trained[0].name)


def _has_students(run: Run, seeds: Sequence[int]) -> bool:
    """Whether a student of these seeds with its weights is stored that the run's teacher has trained."""
    try:
        sha256 = find_teacher(run.teacher, run.dataset).sha256
    except FileNotFoundError:
        return False
    frame = results(run.dataset)
    frame = frame[(frame["teacher_sha256"] == sha256) & (frame["model"] == run.model) & frame["seed"].isin(seeds)]
    return any(_is_usable(frame).values())


def _is_usable(frame) -> dict[str, bool]:
    """identity -> whether its weights are stored here and match the record; a checkout has records without weights."""

    def usable(name: str, identity: str) -> bool:
        try:
            return read_weights(artifacts.weights_path(name)).description.get("identity") == identity
        except (OSError, ValueError):
            return False

    return {identity: usable(name, identity) for name, identity in zip(frame["name"], frame["identity"], strict=True)}


def _picked(frame, names: list[str], dataset: str):
    names = [artifacts.original_name(name) for name in names]
    if missing := [name for name in names if name not in set(frame["name"])]:
        names = known_names(missing[0], frame["name"])
        raise FileNotFoundError(f"students: {missing[0]} is not stored for {dataset} with its weights; {names}")
    return frame[frame["name"].isin(names)]


def _of_the_budget_of(name: str, frame, dataset: str):
    (budget,) = _picked(frame, [name], dataset)["budget_key"]
    return frame[frame["budget_key"] == budget]


def _of_one_budget(frame, student: str, teacher: str, seeds: Sequence[int]):
    sha256 = find_weights(teacher).sha256
    frame = frame[frame["teacher_sha256"].isna() | (frame["teacher_sha256"] == sha256)]
    frame = frame[(frame["model"] == student) & frame["seed"].isin(seeds)]
    budgets = [group for _, group in frame.groupby("budget_key")]
    chosen = max(budgets, key=lambda group: (len(group), group["finished"].max()), default=frame)
    if len(budgets) > 1:
        names = ", ".join(frame.loc[~frame["name"].isin(chosen["name"]), "name"])
        message = f"students of {len(budgets)} budgets are stored; left out: {names} (`like` picks a budget)"
        inform(message)
    return chosen


def short_labels(settings) -> dict[str, str]:
    """setting -> its method's title; the label with hyperparameters if several share the title; else a run's name."""
    labels = settings["run"].map(run_title)
    for finer in (settings["label"], settings["name"]):
        labels = labels.where(~labels.duplicated(keep=False), finer)
    return dict(zip(settings["setting"], labels, strict=True))


def _data_arguments(frame) -> tuple:
    """The arguments of `load_data` for these runs; ValueError if they differ."""
    fields = "dataset image_size val_fraction split_seed".split()
    arguments = {tuple(run.get(field) for field in fields) for run in frame["run"]}
    if len(arguments) > 1:
        raise ValueError(f"students: trained on different data {', '.join(fields)} = {sorted(map(str, arguments))}")
    return arguments.pop()

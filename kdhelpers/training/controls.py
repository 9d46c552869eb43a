"""What a student is compared with: its controls, and its teacher."""

from kdhelpers.data import Data
from kdhelpers.display.progress import Progress
from kdhelpers.models import is_network
from kdhelpers.training.fit import fit
from kdhelpers.training.named import EXAMPLE, run_of
from kdhelpers.training.options import named_values
from kdhelpers.training.run import Run
from kdhelpers.training.sweep import sweep_runs
from kdhelpers.weights.load import describe_teacher, find_teacher

OF_METHODS = {"method", "hyperparameters", "placebo", "teacher", "name"}
OF_STUDENTS = {
    "model",
    "model_options",
    "pretrained",
    "start_from",
    "role",
    "selection",
    "seed",
    "unlabelled_batch_size",
}


def without_teacher(run: Run) -> Run:
    """The control of a student: the same run by cross-entropy alone, without a teacher. Tables call it CE (no teacher).

    Its name says if the last epoch is kept, or an optimiser other than SGD trains: student_si_last_resnet8_cifar100.
    """
    words = ["last"] * (run.selection == "last") + [run.optimizer] * (run.optimizer != "sgd")
    name = "_".join(["student_si", *words, run.model, run.dataset]) if words else None
    return Run(**run.model_dump(exclude={*OF_METHODS, "other_image_size"}), name=name)


def control_runs(run: Run) -> list[Run]:
    """A student with a teacher and its controls, for `fit_sweep`: all have its teacher or none, and its budget.

    CE without a teacher, the run, its shuffled and its mean placebo, label smoothing, KD on images mixed by mixup and
    by CutMix. The last three have their default hyperparameters.
    """
    fields = run.model_dump(exclude=OF_METHODS)
    mixed = Run(**fields, method="lm_mixed", teacher=run.teacher)
    placebos = [Run(**run.model_dump(exclude={"name"}) | {"placebo": kind}) for kind in ("shuffled", "mean")]
    smoothed = Run(**fields | {"other_image_size": False}, method="ls")
    return [without_teacher(run), run, *placebos, smoothed, *sweep_runs(mixed, "mix=mixup; mix=cutmix")]


def with_untrained_teacher(run: Run, data: Data | None = None, progress: Progress | None = None) -> Run:
    """The run with a teacher of the same architecture and of random weights, which are stored and tested now.

    Its record has 0 epochs; tables call it untrained. Raises as `describe_teacher` does.
    """
    description = describe_teacher(run.teacher, run.dataset)
    fields = run.model_dump(include={"dataset", "image_size", "val_fraction", "split_seed", "unlabelled"})
    fields |= {field: description[field] for field in ("model", "model_options")}
    untrained = fit(Run(**fields, role="teacher", selection="last", epochs=0), data, progress=progress)
    stem = run.name or "_".join([run.role, run.method_name, run.model, run.dataset])
    return Run(**run.model_dump(exclude={"name", "teacher"}), teacher=untrained.name, name=f"{stem}_untrained_teacher")


def ensure_teacher(run: Run, data: Data | None = None, progress: Progress | None = None, recipe: str = "") -> Run:
    """The run with a stored teacher: if its teacher is an architecture without weights, they are trained now.

    recipe: settings of the teacher as text, such as "epochs=20 base_channels=8"; the run gives the others. With a
    recipe the run gets the teacher of exactly these settings, else any stored one. The teacher of seed 0 is trained on
    the labels, as notebook 01_teacher does. Raises FileNotFoundError for a missing teacher that is not an architecture.
    """
    if is_network(run.teacher) and (recipe or not _is_stored(run)):
        values = run.model_dump(exclude=OF_METHODS | OF_STUDENTS) | named_values(recipe, "recipe", EXAMPLE)
        values |= {} if run.val_fraction else {"selection": "last"}  # no held-out images to select an epoch by
        trained = fit(run_of(values | {"role": "teacher", "model": run.teacher}), data, progress=progress)
        return run.model_copy(update={"teacher": trained.name}) if recipe else run
    find_teacher(run.teacher, run.dataset)
    return run


def _is_stored(run: Run) -> bool:
    try:
        find_teacher(run.teacher, run.dataset)
    except FileNotFoundError:
        return False
    return True

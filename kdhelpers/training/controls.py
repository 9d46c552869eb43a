"""What a student is compared with: its control without a teacher, and its teacher."""

from kdhelpers.data import Data
from kdhelpers.display.progress import Progress
from kdhelpers.models import MODELS
from kdhelpers.training.fit import fit
from kdhelpers.training.named import EXAMPLE, run_of
from kdhelpers.training.options import named_values
from kdhelpers.training.run import Run
from kdhelpers.weights.load import find_teacher

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
    return Run(**run.model_dump(exclude=OF_METHODS), name=name)


def ensure_teacher(run: Run, data: Data | None = None, progress: Progress | None = None, recipe: str = "") -> Run:
    """The run with a stored teacher: if its teacher is an architecture without weights, they are trained now.

    recipe: settings of the teacher as text, such as "epochs=20 base_channels=8"; the run gives the others. With a
    recipe the run gets the teacher of exactly these settings, else any stored one. The teacher of seed 0 is trained on
    the labels, as notebook 01_teacher does. Raises FileNotFoundError for a missing teacher that is not an architecture.
    """
    if run.teacher in MODELS and (recipe or not _is_stored(run)):
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

"""What a student is compared with: its control without a teacher, and its teacher."""

from kdhelpers.data import Data
from kdhelpers.display.progress import Progress
from kdhelpers.models import MODELS
from kdhelpers.training.fit import fit
from kdhelpers.training.run import Run
from kdhelpers.weights.load import find_teacher

OF_STUDENTS = {"method", "hyperparameters", "teacher", "unlabelled_batch_size", "name"}  # fields without use elsewhere
OF_NETWORKS = {"model", "model_options", "pretrained", "start_from", "role", "selection", "seed"}


def without_teacher(run: Run) -> Run:
    """The control of a student: the same run by cross-entropy alone, without a teacher. Tables call it CE (no teacher).

    With the last epoch kept, its name says so: student_si_last_resnet8_cifar100.
    """
    last = f"student_si_last_{run.model}_{run.dataset}" if run.selection == "last" else None
    return Run(**run.model_dump(exclude=OF_STUDENTS), name=last)


def ensure_teacher(run: Run, data: Data | None = None, progress: Progress | None = None) -> None:
    """Train the teacher of `run` if it is an architecture without stored weights: on the labels, by the run's recipe.

    It is the teacher of seed 0 that notebook 01_teacher trains with these settings. Raises FileNotFoundError for a
    missing teacher that is not the name of an architecture, as `fit` does.
    """
    try:
        find_teacher(run.teacher, run.dataset)
    except FileNotFoundError:
        if run.teacher not in MODELS:
            raise
        recipe = run.model_dump(exclude=OF_STUDENTS | OF_NETWORKS)
        fit(Run(role="teacher", model=run.teacher, **recipe), data, progress=progress)

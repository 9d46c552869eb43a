"""Names of pictures after the runs that they show."""

import os


def curves_name(trained, teacher: str | None = None, named: bool = False) -> str:
    """What the picture of a run's curves is called: <name>_curves.

    Those of a teacher on Imagenette, and of a student that one of architecture `teacher` taught by ConKD with Lion, are
    called as users of that study know them, unless the user `named` the run or another has its derived name:
    resnet101-teacher_output, resnet101-18-teacher-student_output. Another method or optimiser is another picture.
    """
    run = trained.run
    published = run.role == "teacher" or (teacher and (run.method, run.optimizer) == ("conkd", "lion"))
    own_name = trained.name == run.artifact_name and not (named or run.start_from)
    if not (run.dataset == "imagenette" and published and own_name):
        return f"{trained.name}_curves"
    family = os.path.commonprefix([teacher or "", run.model]).rstrip("0123456789")
    kind = f"{teacher}-{run.model.removeprefix(family)}-teacher-student" if teacher else f"{run.model}-teacher"
    return f"{kind}_output" + (f"_seed{run.seed}" if run.seed else "")

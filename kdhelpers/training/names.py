"""Names of artifacts that users of the published studies know, and of the runs of a sweep."""

import os
from typing import Any

from kdhelpers.training.run import Run

WORDS = {"lam": "hybrid_lambda", "temperature": "tau"}  # how the published tables call these hyperparameters
NOT_HYBRID = ("lam", 1.0)


def curves_name(run: Run, name: str, teacher: str | None = None, named: bool = False) -> str:
    """Name of the picture of a run's curves: <name>_curves, `name` being the name of its artifacts.

    On Imagenette, the curves of a teacher, and of a student that a teacher of architecture `teacher` trained by ConKD
    with Lion, have published names: resnet101-teacher_output, resnet101-18-teacher-student_output. They keep the plain
    name if the user `named` the run, or if its artifacts have another name than the derived one.
    """
    published = run.role == "teacher" or (teacher and (run.method, run.optimizer) == ("conkd", "lion"))
    plain = name == run.artifact_name and not (named or run.start_from or run.placebo)
    if run.dataset != "imagenette" or not published or not plain:
        return f"{name}_curves"
    family = os.path.commonprefix([teacher or "", run.model]).rstrip("0123456789")
    kind = f"{teacher}-{run.model.removeprefix(family)}-teacher-student" if teacher else f"{run.model}-teacher"
    return f"{kind}_output" + (f"_seed{run.seed}" if run.seed else "")


def variant_name(run: Run, chosen: dict, source: str = "") -> str:
    """Name of a sweep's run with the `chosen` hyperparameters: student_alpha_1.0_beta_12.0_resnet18_cifar100.

    Methods other than SupCRD put their own name in front; a `name` of the run takes the place of the rest. source:
    where the other hyperparameters are from, if not from the defaults: "published".
    """
    named = {name: run.hyperparameters[name] for name in (*chosen, "lam") if name in run.hyperparameters}
    words = [source] * bool(source)
    words += [f"{WORDS.get(name, name)}_{_text(value)}" for name, value in named.items() if (name, value) != NOT_HYBRID]
    if run.name:
        return "_".join([run.name, *words])
    method = [] if words and run.method_name == "supcrd" else [run.method_name]
    return "_".join([run.role, *method, *words, run.model, run.dataset])


def _text(value: Any) -> str:
    """As part of a file name: 1-2-4 of a list."""
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def optimizer_name(run: Run, optimizer: str) -> str:
    """Name of the run with this optimiser: student_conkd_lion_resnet18_imagenette."""
    return (
        f"{run.name}_{optimizer}"
        if run.name
        else "_".join([run.role, run.method_name, optimizer, run.model, run.dataset])
    )

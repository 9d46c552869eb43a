"""The profile that a study feeds: a job per method, which trains and tests its chosen setting over seeds."""

import json
import shlex
from pathlib import Path
from typing import Any

import yaml

from kdhelpers import artifacts
from kdhelpers.methods import METHODS
from kdhelpers.training.options import option_defaults
from kdhelpers.training.run import Run, distinctive
from kdhelpers.training.sweep import method_runs
from kdhelpers.tuning.study import Study
from kdhelpers.tuning.table import chosen_runs

NOTEBOOK = "31_method_table"
SHOWN = "dataset epochs lr batch_size augmentation selection".split()  # parameters that the notebook has a default for
HEAD = """\
# tuned_{name}: each method at the best of its {trials} trials on held-out training images, to be tested over seeds.
#
#   python -m kdhelpers suite --profile {path} --seeds 0 1 2
#
# `python -m kdhelpers tune` wrote it from json_results/trials/{name}/. A profile is a list of jobs; smoke.yaml explains
# their keys.

"""


def profile_path(study: Study) -> Path:
    return artifacts.root() / "notebooks" / "profiles" / f"tuned_{study.name}.yaml"


def write_profile(study: Study) -> Path:
    """Raises ValueError if a chosen setting cannot be stated as parameters of the notebook."""
    chosen, path = chosen_runs(study), profile_path(study)
    teacher = next((run.teacher for run in chosen.values() if run.teacher), None)
    jobs = [_job(key, run, teacher, f"tuned_{study.name}") for key, run in chosen.items()]
    jobs.append({"name": f"30_results_tuned_{study.name}", "notebook": "30_results", "after": ["*"]})
    jobs[-1]["parameters"] = {"dataset": next(iter(study.runs.values())).dataset}
    text = HEAD.format(name=study.name, trials=study.trials, path=shlex.quote(shown(path)))
    artifacts.write_atomic(path, (text + yaml.safe_dump(jobs, sort_keys=False, width=120)).encode())
    return path


def shown(path: Path) -> str:
    """Relative to the current folder if it lies there."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _job(key: str, run: Run, teacher: str | None, name: str) -> dict:
    parameters = _parameters(run, teacher, name)
    return {"name": f"31_{name}_{key}", "notebook": NOTEBOOK, "seeds": "each", "parameters": parameters}


def _parameters(run: Run, teacher: str | None, name: str) -> dict[str, Any]:
    """The parameters of the notebook. `rounds` 0: times of steps that are taken while other jobs run mean nothing."""
    fields = {field: getattr(run, field) for field in SHOWN} | {"student": run.model}
    for field, value in distinctive(run.model_dump()).items():
        if field not in (*SHOWN, "model", "method", "hyperparameters", "placebo", "seed"):
            fields[field] = value
    fields |= {"teacher": teacher} if teacher else {}
    fields |= {"methods": _method_text(run), "name": name, "rounds": 0}
    _check_round_trip(run, fields)
    return fields


def _method_text(run: Run) -> str:
    """`dkd beta:2.5 temperature:3.0`, as the notebook takes it."""
    defaults = option_defaults(METHODS[run.method])
    given = {name: value for name, value in run.hyperparameters.items() if defaults.get(name) != value}
    given |= {"placebo": run.placebo} if run.placebo else {}
    words = [f"{name}:{_quoted(value)}" for name, value in given.items()]
    return " ".join([run.method, *words])


def _quoted(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def _check_round_trip(run: Run, parameters: dict[str, Any]) -> None:
    """The notebook must train what was chosen."""
    own = {"methods", "rounds", "student"}
    values = {name: value for name, value in parameters.items() if name not in own} | {
        "model": run.model,
        "seed": run.seed,
    }
    (stated,) = method_runs(values, parameters["methods"])
    if distinctive(stated.model_dump()) != distinctive(run.model_dump()):
        differing = [
            name for name in Run.model_fields if getattr(stated, name) != getattr(run, name) and name != "name"
        ]
        raise ValueError(f"profile: {NOTEBOOK} cannot state {', '.join(fields)} of {run.method}; train the run alone")

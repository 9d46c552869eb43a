"""The profile that a study feeds: a job per method, which trains and tests its chosen setting over seeds."""

import json
import shlex
from pathlib import Path
from typing import Any

import yaml

from kdhelpers import artifacts
from kdhelpers.methods import METHODS
from kdhelpers.training.named import run_of
from kdhelpers.training.options import option_defaults
from kdhelpers.training.run import Run, distinctive
from kdhelpers.training.sweep import method_runs
from kdhelpers.tuning.study import Study
from kdhelpers.tuning.table import chosen_runs

TABLE = "31_method_table"  # of any method with a teacher
ALONE = {"si": "02_independent_student", "ls": "03_label_smoothing", "supcon": "08_supcon"}
SHOWN = "dataset epochs lr batch_size augmentation".split()  # parameters for which every notebook has a default
HEAD = """\
# tuned_{name}: each method at the best of its {trials} trials on held-out training images, to be tested over seeds.
#
#   python -m kdhelpers suite --profile {path} --seeds 0 1 2
#
# `python -m kdhelpers tune` wrote it from json_results/trials/{name}/. A profile is a list of jobs; smoke.yaml explains
# their keys. The same `tune` command then shows the tests in its table.{left_out}

"""


def profile_path(study: Study) -> Path:
    return artifacts.root() / "notebooks" / "profiles" / f"tuned_{study.name}.yaml"


def write_profile(study: Study) -> Path:
    """Raises ValueError if a chosen setting cannot be stated as parameters of its notebook."""
    chosen, path, name = chosen_runs(study), profile_path(study), f"tuned_{study.name}"
    without = [run.method for run in chosen.values() if not (run.teacher or run.method in ALONE)]
    jobs = [_job(key, run, name) for key, run in chosen.items() if run.method not in without]
    results = {"dataset": next(iter(study.runs.values())).dataset}
    jobs.append({"name": f"30_results_{name}", "notebook": "30_results", "after": ["*"], "parameters": results})
    left_out = f" No notebook trains {', '.join(without)}." * bool(without)
    head = HEAD.format(name=study.name, trials=study.trials, path=shlex.quote(shown(path)), left_out=left_out)
    return artifacts.write_atomic(path, (head + yaml.safe_dump(jobs, sort_keys=False, width=120)).encode())


def shown(path: Path) -> str:
    """Relative to the current folder if it lies there."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _job(key: str, run: Run, name: str) -> dict:
    notebook = TABLE if run.teacher else ALONE[run.method]
    stated = {field: getattr(run, field) for field in SHOWN} | {"student": run.model, "name": f"{name}_{key}"}
    for field, value in distinctive(run.model_dump()).items():
        if field not in (*SHOWN, "model", "method", "hyperparameters", "placebo", "seed"):
            stated[field] = value
    if run.teacher:  # step times that are measured while other jobs run mean nothing
        stated |= {"teacher": run.teacher, "methods": _method_text(run), "selection": run.selection, "rounds": 0}
    else:
        stated |= _hyperparameters(run)
    _check_round_trip(run, stated, notebook)
    return {"name": f"{notebook}_{name}_{key}", "notebook": notebook, "seeds": "each", "parameters": stated}


def _hyperparameters(run: Run) -> dict[str, Any]:
    """Those that differ from the method's defaults."""
    defaults = option_defaults(METHODS[run.method])
    return {name: value for name, value in run.hyperparameters.items() if defaults.get(name) != value}


def _method_text(run: Run) -> str:
    """`dkd beta:2.5 temperature:3.0`, as the notebook takes it."""
    given = _hyperparameters(run) | ({"placebo": run.placebo} if run.placebo else {})
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return " ".join([run.method, *(f"{name}:{shlex.quote(text)}" for name, text in texts.items())])


def _check_round_trip(run: Run, stated: dict[str, Any], notebook: str) -> None:
    """The notebook must train what was chosen."""
    own = ("methods", "rounds", "student")
    values = {name: value for name, value in stated.items() if name not in own} | {"model": run.model, "seed": run.seed}
    trained = method_runs(values, stated["methods"])[0] if run.teacher else run_of(values | {"method": run.method})
    if distinctive(trained.model_dump()) != distinctive(run.model_dump()):
        fields = [name for name in Run.model_fields if getattr(trained, name) != getattr(run, name) and name != "name"]
        raise ValueError(f"profile: {notebook} cannot state {', '.join(fields)} of {run.method}; train the run alone")

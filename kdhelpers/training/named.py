"""Runs from flat names, as notebooks, papermill and the command line give them: `lr=0.1 temperature=4`."""

import json
from collections.abc import Mapping
from typing import Any

from kdhelpers.methods import METHODS
from kdhelpers.models import MODELS, default_options
from kdhelpers.nearest import check_known, known_names
from kdhelpers.training.optim import OPTIMIZERS, SCHEDULES
from kdhelpers.training.options import named_values, option_defaults
from kdhelpers.training.run import OPTIONS, Run

SWITCHES = ("force_retrain", "cache_teacher", "tensorboard", "graphs")
FIT_OPTIONS = (*SWITCHES, "device")
EXAMPLE = "\"weight_decay=1e-3 augmentation='crop flip'\""


def run_of(values: Mapping[str, Any]) -> Run:
    """The Run of flat names: its fields, and the options of its method, network, optimiser and schedule.

    run_of({"method": "lm", "teacher": "resnet20", "temperature": 2}) has the hyperparameter temperature = 2. A name of
    both a hyperparameter and a field (DKD's warmup_epochs) means the hyperparameter, unless `hyperparameters` has it
    already. Raises ValueError that gives the nearest name for an unknown one.
    """
    options = _options_of(values)
    given = values.get("hyperparameters") or {}
    own = {name for name in options["hyperparameters"] if name not in given}
    fields = {name: value for name, value in values.items() if name in Run.model_fields and name not in own}
    for name, value in values.items():
        if name not in fields:
            field = next((field for field, known in options.items() if name in known), None)
            if field is None:
                known = [*Run.model_fields, *(option for names in options.values() for option in names)]
                raise ValueError(f"{name} = {value}: unknown; {known_names(name, known)}")
            given = fields.get(field) or {}
            if isinstance(given, str):
                given = named_values(given, field, EXAMPLE)
            fields[field] = dict(given) | {name: _parsed(value)}
    return Run(**fields)


def _options_of(fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """Field of a Run that holds options -> their names, for the run's method, network, optimiser and schedule."""
    chosen = {
        name: fields.get(name, Run.model_fields[name].default) for name in ("method", "model", "optimizer", "schedule")
    }
    for field, registry in {"model": MODELS, **dict(OPTIONS.values())}.items():
        check_known(field, chosen[field], registry)
    options = {field: list(option_defaults(registry[chosen[name]])) for field, (name, registry) in OPTIONS.items()}
    return options | {"model_options": list(default_options(chosen["model"]))}


def _parsed(value: Any) -> Any:
    """A list or mapping from its JSON text; a `Run` coerces other texts itself."""
    return json.loads(value) if isinstance(value, str) and value[:1] in ("[", "{") else value


def settings(training: str = "", **values: Any) -> tuple[dict[str, Any], dict[str, bool | str]]:
    """What a notebook trains: the flat `values` of a run, completed; and the options of `fit` (`FIT_OPTIONS`).

    training: further names and values as text, such as "weight_decay=1e-3 augmentation='crop flip'". A parameter that
    papermill passes, and that the parameter cell lacks, replaces a value of the text. Raises ValueError for a name that
    the notebook itself sets, and for text that is not name=value. `run_of` checks the names.
    """
    from kdhelpers.display.notebook import added_parameters  # imports matplotlib

    more = named_values(training, "training", EXAMPLE) | added_parameters()
    if twice := [name for name in more if name in values]:
        raise ValueError(
            f"training: {twice[0]} = {more[twice[0]]}: this notebook sets {twice[0]} itself; change it there"
        )
    options = {name: more.pop(name) for name in FIT_OPTIONS if name in more}
    options |= {name: str(options[name]).lower() in ("true", "1") for name in SWITCHES if name in options}
    return values | more, options


def all_names() -> set[str]:
    """Every name that `settings` and `run_of` accept for some run."""
    registries = [METHODS, OPTIMIZERS, SCHEDULES]
    options = {
        name for registry in registries for configured in registry.values() for name in option_defaults(configured)
    }
    networks = {name for architecture in MODELS for name in default_options(architecture)}
    return {*Run.model_fields, *FIT_OPTIONS} | options | networks

"""Runs from flat names, as notebooks, papermill and the command line give them: `lr=0.1 temperature=4`."""

import json
from collections.abc import Mapping
from typing import Any

from kdhelpers.messages import short
from kdhelpers.methods import METHODS
from kdhelpers.models import MODELS, NODE_OPTIONS, check_network, default_options, is_external, option_names
from kdhelpers.nearest import check_known, known_names
from kdhelpers.training.optim import OPTIMIZERS, SCHEDULES
from kdhelpers.training.options import named_values, option_defaults
from kdhelpers.training.published import is_published, published_hyperparameters
from kdhelpers.training.run import OPTIONS, Run

SWITCHES = ("force_retrain", "cache_teacher", "tensorboard", "graphs")
FIT_OPTIONS = (*SWITCHES, "device")
EXAMPLE = "\"weight_decay=1e-3 augmentation='crop flip'\""


def run_of(values: Mapping[str, Any]) -> Run:
    """The Run of flat names: its fields, and the options of its method, network, optimiser and schedule.

    run_of({"method": "lm", "teacher": "resnet20", "temperature": 2}) has the hyperparameter temperature = 2, which
    replaces a value of `hyperparameters`, also a published one. A name of both a hyperparameter and a field (DKD's
    warmup_epochs) means the hyperparameter, unless the mapping `hyperparameters` has it already. Raises ValueError that
    gives the nearest name for an unknown one.
    """
    options = _options_of(values)
    given = values.get("hyperparameters") or {}
    own = {name for name in options["hyperparameters"] if is_published(given) or name not in given}
    fields = {name: value for name, value in values.items() if name in Run.model_fields and name not in own}
    added: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in fields:
            field = next((field for field, known in options.items() if name in known), None)
            if field is None:
                known = [*Run.model_fields, *(option for names in options.values() for option in names)]
                given = f"; for the network itself: model_options={short(name)}:{short(value)}"
                own = given * is_external(values.get("model"))
                raise ValueError(f"{short(name)} = {short(value)}: unknown; {known_names(name, known)}{own}")
            added.setdefault(field, {})[name] = _parsed(value)
    return Run(**fields | {field: _joined(field, fields, more) for field, more in added.items()})


def _joined(field: str, fields: Mapping[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The options of a field, as a mapping or a text, and `more`, which replace them."""
    given = fields.get(field) or {}
    if is_published(given):
        defaults = {name: Run.model_fields[name].default for name in ("method", "model", "dataset")}
        return published_hyperparameters(given, defaults | dict(fields), more)
    return dict(named_values(given, field, EXAMPLE) if isinstance(given, str) else given) | more


def _options_of(fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """Field of a Run that holds options -> their names, for the run's method, network, optimiser and schedule."""
    chosen = {
        name: fields.get(name, Run.model_fields[name].default) for name in ("method", "model", "optimizer", "schedule")
    }
    check_network(chosen["model"])
    for field, registry in OPTIONS.values():
        check_known(field, chosen[field], registry)
    options = {field: list(option_defaults(registry[chosen[name]])) for field, (name, registry) in OPTIONS.items()}
    return options | {"model_options": option_names(chosen["model"])}


def _parsed(value: Any) -> Any:
    """A list or mapping from its JSON text; a `Run` coerces other texts itself."""
    return json.loads(value) if isinstance(value, str) and value[:1] in ("[", "{") else value


def settings(training: str = "", **values: Any) -> tuple[dict[str, Any], dict[str, bool | str]]:
    """What a notebook trains: the flat `values` of a run, completed; and the options of `fit` (`FIT_OPTIONS`).

    training: further names and values as text, such as "weight_decay=1e-3 augmentation='crop flip'". A parameter that
    papermill passes, and that the parameter cell lacks, replaces a value of the text. With `hyperparameters=published`,
    or a pair of networks, the hyperparameters of the parameter cell count only if papermill passed them. Raises
    ValueError for a name that the notebook itself sets, and for text that is not name=value. `run_of` checks the names.
    """
    from kdhelpers.display.notebook import added_parameters, passed_parameters  # imports matplotlib

    more = named_values(training, "training", EXAMPLE) | added_parameters()
    if is_published(more.get("hyperparameters")):
        of_cell = {*_options_of(values | more)["hyperparameters"]} - {*passed_parameters()}
        values = {name: value for name, value in values.items() if name not in of_cell}
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
    return {*Run.model_fields, *FIT_OPTIONS, *NODE_OPTIONS} | options | networks

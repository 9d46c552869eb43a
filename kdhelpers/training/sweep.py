"""Sweeps: the runs that differ from one run in a few hyperparameters, in the method, or in the optimiser."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from kdhelpers.methods import METHODS
from kdhelpers.nearest import check_known
from kdhelpers.training.named import run_of
from kdhelpers.training.names import optimizer_name, variant_name
from kdhelpers.training.optim import starting_point
from kdhelpers.training.options import named_values
from kdhelpers.training.published import is_published
from kdhelpers.training.run import Run

METHODS_EXAMPLE = '"lm; dkd beta=2; lm placebo=shuffled; vid resnet56>resnet20"'
EXAMPLE = '"alpha=1 beta=12; temperature=0.05; lam=0.3"'


def sweep_runs(run: Run, settings: str) -> list[Run]:
    """A run per setting of "alpha=1 beta=12; temperature=0.05; lam=0.3"; `run` alone if `settings` is empty.

    A setting takes the hyperparameters that it leaves out from `run`; its name lists the others (see `variant_name`).
    "published" and "resnet56>resnet20" are complete settings (see `published.py`). Raises ValueError for text that is
    not a setting, for two runs of one name, and as `Run` does.
    """
    runs = [_variant(run, text) for text in settings.split(";") if text.strip()] or [run]
    _refuse_equal_names(runs, "settings")
    return runs


def _refuse_equal_names(runs: list[Run], what: str) -> None:
    for first, second in combinations(runs, 2):
        if first.artifact_name == second.artifact_name and first.id != second.id:
            name = first.artifact_name
            raise ValueError(f"{what}: two different runs get the name {name}; name in each what differs")


def method_runs(values: Mapping[str, Any], methods: str) -> list[Run]:
    """A run per method of "si; lm; dkd beta=2 warmup_epochs=1; lm placebo=shuffled; vid resnet56>resnet20".

    values: the flat names of the other settings, as `run_of` takes them. A method is followed by its own values, which
    may begin with `published` or a pair. A run's name lists these values; a `name` among the values stands before the
    method. Methods without a teacher leave it out. Raises ValueError for an unknown method, for two runs of one name,
    and as `run_of` does.
    """
    runs = [_of_method(values, text) for text in methods.split(";") if text.strip()]
    _refuse_equal_names(runs, "methods")
    return runs


def _of_method(values: Mapping[str, Any], text: str) -> Run:
    method, _, rest = text.strip().partition(" ")
    check_known("method", method, METHODS)
    source, _, words = rest.strip().partition(" ") if is_published(rest) else ("", "", rest)
    chosen = named_values(words, "methods", METHODS_EXAMPLE)
    given = {"method": method} | ({"hyperparameters": source} if source else {})
    given |= {} if METHODS[method].needs_teacher else {"teacher": None}
    run = run_of({**values, **chosen, **given, "name": None})
    base = values.get("name")
    named = run.model_copy(update={"name": f"{base}_{run.method_name}"}) if base else run
    name = variant_name(named, chosen, source.replace(">", "-")) if base or rest else None
    return run.model_copy(update={"name": name})


def _variant(run: Run, text: str) -> Run:
    fields = run.model_dump(exclude={"hyperparameters"})
    if is_published(text):
        source, _, words = text.strip().partition(" ")
        chosen = named_values(words, "settings", EXAMPLE)
        variant = Run(**fields, hyperparameters=text)
        return variant.model_copy(update={"name": variant_name(variant, chosen, source.replace(">", "-"))})
    chosen = named_values(text, "settings", EXAMPLE)
    variant = Run(**fields, hyperparameters=run.hyperparameters | chosen)
    return variant.model_copy(update={"name": variant_name(variant, chosen)})


def optimizer_runs(run: Run, others: str) -> list[Run]:
    """`run`, then the same run with each of the `others`: names of optimisers, separated by spaces.

    The others take the learning rate and weight decay of `starting_point`. Raises ValueError for an unknown optimiser.
    """
    runs = [run.model_copy(update={"name": run.name or optimizer_name(run, run.optimizer)})]
    fields = run.model_dump(exclude={"optimizer", "optimizer_options", "lr", "weight_decay", "name"})
    for other in dict.fromkeys(others.split()):
        if other != run.optimizer:
            lr, decay = starting_point(other)
            name = optimizer_name(run, other)
            runs.append(Run(**fields, optimizer=other, lr=lr, weight_decay=decay, name=name))
    return runs

"""Sweeps: the runs that differ from one run in a few hyperparameters, in the method, or in the optimiser."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from kdhelpers.training.named import run_of
from kdhelpers.training.names import optimizer_name, variant_name
from kdhelpers.training.optim import starting_point
from kdhelpers.training.options import named_values
from kdhelpers.training.run import Run

EXAMPLE = '"alpha=1 beta=12; temperature=0.05; lam=0.3"'


def sweep_runs(run: Run, settings: str) -> list[Run]:
    """A run per setting of "alpha=1 beta=12; temperature=0.05; lam=0.3"; `run` alone if `settings` is empty.

    A setting takes the hyperparameters that it leaves out from `run`; its name lists the others (see `variant_name`).
    Raises ValueError for text that is not a setting, for two runs of one name, and as `Run` does.
    """
    runs = [_variant(run, text) for text in settings.split(";") if text.strip()] or [run]
    for first, second in combinations(runs, 2):
        if first.name == second.name and first.id != second.id:
            raise ValueError(f"settings: two different runs get the name {first.name}; name in each what differs")
    return runs


def _variant(run: Run, text: str) -> Run:
    chosen = named_values(text, "settings", EXAMPLE)
    fields = run.model_dump(exclude={"hyperparameters"})
    variant = Run(**fields, hyperparameters=run.hyperparameters | chosen)
    return variant.model_copy(update={"name": variant_name(variant, chosen)})


def method_runs(values: Mapping[str, Any], methods: str) -> list[Run]:
    """A run for each method of "lm; hints mode=joint; at kd_weight=500", with the flat `values` of `run_of` otherwise.

    A method with hyperparameters is named as in `sweep_runs`. Raises ValueError as `run_of` and `sweep_runs`.
    """
    runs = []
    for text in filter(None, map(str.strip, methods.split(";"))):
        method, _, settings = text.partition(" ")
        runs += sweep_runs(run_of({**values, "method": method}), settings)
    return runs


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

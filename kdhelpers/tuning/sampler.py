"""Optuna's part: the values of a method's next trial, from the trials of this method that have ended."""

import zlib
from collections.abc import Iterable
from typing import Any

from kdhelpers.tuning.space import Dimension, Space

INSTALL = "pip install -r requirements-tune.txt"


def require_optuna():
    """The library. ValueError with the remedy if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ValueError(f"tune needs Optuna, which is not installed: {INSTALL}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def suggest(space: Space, ended: Iterable[tuple[dict[str, Any], float]], seed: int, number: int) -> dict[str, Any]:
    """The values of trial `number`: Optuna's TPE, whose first ten trials are random.

    ended: values and held-out accuracy of earlier trials. The sampler is made for this one trial, of seed and number,
    so equal arguments give equal values: an interrupted study goes on as if it had not been interrupted, and the
    methods of a comparison draw alike.
    """
    optuna = require_optuna()
    distributions = {name: _distribution(optuna, dimension) for name, dimension in space.items()}
    sampler = optuna.samplers.TPESampler(seed=zlib.crc32(f"{seed} {number}".encode()))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for values, top1 in ended:
        if all(space[name].contains(value) for name, value in values.items()):  # the start may lie outside
            trial = optuna.trial.create_trial(params=values, distributions=distributions, value=top1)
            study.add_trial(trial)
    return {name: space[name].tidy(value) for name, value in study.ask(distributions).params.items()}


def _distribution(optuna, dimension: Dimension):
    if dimension.choices:
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    kinds = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution
    return kinds[dimension.whole](dimension.low, dimension.high, log=dimension.log)

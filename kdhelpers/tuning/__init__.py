"""Tuning: the same number of trials for every method of a comparison, on held-out images.

`space` has what is searched, `study` which trial is next, `sampler` asks Optuna for its values, `trials` trains them
here or in worker processes, `table` and `picture` show what came out, `profile` writes the jobs that test the choice.
`tune` trains, `report.report` writes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def tune(
    values: Mapping[str, Any],
    methods: str,
    trials: int,
    *,
    name: str | None = None,
    space: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    device: str | None = None,
):
    """Train the open trials of a study; returns it and its number of held-out images.

    See `python -m kdhelpers tune --help`. Raises ValueError for a faulty space or setting, or without Optuna, before
    anything trains.
    """
    from kdhelpers.suite.ray_workers import RayWorkers
    from kdhelpers.suite.workers import LocalWorkers
    from kdhelpers.tuning.sampler import require_optuna
    from kdhelpers.tuning.study import make_study
    from kdhelpers.tuning.trials import WORKER, inputs_of, train_in_workers, train_open_trials

    require_optuna()
    given = {"values": dict(values), "methods": methods, "trials": trials, "name": name, "space": space}
    study = make_study(**given)
    data = inputs_of(study)
    study.check_stored()
    if ray or (workers or 1) > 1:
        pool = RayWorkers(ray, workers, WORKER) if ray else LocalWorkers(workers, WORKER)
        found = {"space": str(Path(space).absolute())} if space else {}  # Ray's workers may have another folder
        train_in_workers(study, pool, {"study": given | found, "device": device})
    else:
        train_open_trials(study, data, device)
    return study, len(data.val)

"""Training the trials of a study: in this process, in worker processes of this machine, or as Ray tasks."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdhelpers import artifacts
from kdhelpers.data import Data, load_data
from kdhelpers.display.progress import Progress, TerminalProgress
from kdhelpers.messages import inform, stream
from kdhelpers.python_paths import given_networks
from kdhelpers.training.record import own_command
from kdhelpers.training.untested import delete_left_checkpoint, fit_untested
from kdhelpers.tuning.study import INVALID, Study, Trial
from kdhelpers.weights.load import find_teacher

WORKER = "kdhelpers.tuning.worker"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Worker:
    """As the suite's workers take a job. num_gpus: what Ray reserves, None for its default."""

    num_gpus: float | None = None


class Bar(TerminalProgress):
    """A bar on a terminal; `line` says how the trial ended."""

    def end(self, record: dict) -> None:
        self.bar.close()


def inputs_of(study: Study) -> Data:
    """The common data. Raises the errors of missing teachers and images before any training."""
    run = next(iter(study.runs.values()))
    for teacher in {other.teacher for other in study.runs.values() if other.teacher}:
        find_teacher(teacher, run.dataset)
    return load_data(run.dataset, run.image_size, run.val_fraction, run.split_seed, unlabelled=run.unlabelled)


def train_open_trials(study: Study, data: Data, device: str | None = None) -> None:
    """Train every trial that no other process trains, one after the other."""
    for record in (record for key in study.runs for record in study.ended(key)):
        delete_left_checkpoint(record["identity"])  # a kill at the end of a trial leaves it
    while True:
        with study.claim() as trial:
            if trial is None:
                return
            _train(trial, data, device)
            inform(line(study.ended_record(trial.key, trial.number)))


def _train(trial: Trial, data: Data, device: str | None) -> None:
    """A setting that diverges or that no `Run` takes ends its own trial alone; the record has the reason.

    Any other failure ends the study, since it need not be the setting's: its trial stays open.
    """
    try:
        run = trial.run()
    except ValueError as error:
        trial.study.write(trial, status="failed", error=f"{INVALID}: {error}")
        return
    try:
        with contextlib.suppress(FloatingPointError):
            fit_untested(run, data, trial.name, trial.facts, device, Bar() if stream().isatty() else Progress())
    except RuntimeError as error:  # of torch: memory, or a network of the user's own
        fault = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{trial.name} ({values_text(trial.values)}): {type(error).__name__}: {fault}; remove the cause and give "
            "the same command again, or narrow the space under another --name"
        ) from error


def line(record: Mapping[str, Any]) -> str:
    """The end of a trial: `dkd, trial 2: held-out top-1 91.25 % (lr 0.03, beta 2)`."""
    trial = record["trial"]
    finished = record["status"] == "finished"
    outcome = f"held-out top-1 {record['metrics']['val_top1_pct']:.2f} %" if finished else f"failed: {record['error']}"
    return f"{trial['key']}, trial {trial['number']}: {outcome} ({values_text(trial['values'])})"


def values_text(values: Mapping[str, Any]) -> str:
    """`lr 0.03, beta 2`."""
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def train_in_workers(study: Study, pool: Any, order: dict) -> None:
    """Processes of the suite's workers share the open trials; this one prints each trial that ends.

    Raises ChildProcessError with the files of the logs if trials are left when all processes have ended.
    """
    order = order | {"networks": given_networks(), "command": own_command()}
    said = {place for place in study.order if study.ended_record(*place)}
    logs, handles = artifacts.folder("executed") / f"tune_{study.name}", []
    try:
        while pool.free() and len(handles) < min(pool.at_once, study.open_trials()):  # Ray queues any number
            handles.append(pool.start(Worker(), order, f"{logs}_{len(handles)}.log", ""))
        while handles:
            time.sleep(POLL_SECONDS)
            handles = [handle for handle in handles if pool.poll(handle) is None]
            for place in study.order:
                if place not in said and (record := study.ended_record(*place)):
                    said.add(place)
                    inform(line(record))
    finally:
        pool.stop(handles)
    if left := study.open_trials():
        raise ChildProcessError(f"{left} trials have not ended; see {logs}_*.log, then give the same command again")

"""Trainings without a test, for the search of settings: their record has the accuracy on held-out images alone."""

import contextlib
from dataclasses import replace

import torch

from kdhelpers import artifacts
from kdhelpers.data import Data
from kdhelpers.device import full_fp32, pick_device
from kdhelpers.display.progress import Progress
from kdhelpers.evaluation.linear_probe import fit_probe
from kdhelpers.training import loop, record
from kdhelpers.training.checkpoint import delete_checkpoint
from kdhelpers.training.finished import run_lock
from kdhelpers.training.inputs import Inputs, resolve
from kdhelpers.training.job import Job
from kdhelpers.training.run import Run
from kdhelpers.training.student import Training


def without_test_images(data: Data) -> Data:
    """The data with an empty test split: what trains on them cannot test."""
    return replace(data, test=data.test.select(torch.empty(0, dtype=torch.int64)))


def delete_left_checkpoint(identity: str) -> None:
    """That of a trial that has ended, unless another process trains the same run now."""
    path = artifacts.checkpoint_path(identity)
    with contextlib.suppress(BlockingIOError), artifacts.lock(artifacts.run_lock_path(identity), wait=False):
        delete_checkpoint(path)


@torch.random.fork_rng(devices=[])
def fit_untested(
    run: Run,
    data: Data,
    name: str,
    facts: dict,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> dict:
    """Train the run and return its record, json_results/<name>.json, which holds `facts` too; it stores no weights.

    `metrics` has val_top1_pct, the accuracy of the selected epoch on held-out images, and no figure of test images:
    the trained network never meets them. An interrupted training goes on from its checkpoint. Raises the errors of
    `fit`.
    """
    (inputs,) = resolve([run], without_test_images(data), pick_device(device))
    with full_fp32(), run_lock(inputs.identity):
        job = Untested(inputs, name, facts)
        loop.train([job], progress or Progress())
    return job.record


class Untested(Job):
    """A training whose end neither tests nor stores weights."""

    def __init__(self, inputs: Inputs, name: str, facts: dict):
        self._name, self._facts = name, facts
        super().__init__(inputs)
        self.record |= facts

    def reserve(self, facts: dict) -> str:
        stub = {"schema": artifacts.SCHEMA, "name": self._name, "identity": self.inputs.identity, **facts}
        artifacts.save_json(artifacts.record_path(self._name), stub | self._facts)
        return self._name

    def store(self, training: Training) -> None:
        method, rule = training.method, self.inputs.run.selection
        probe = None if method.trains_classifier else fit_probe(training.network, self.inputs.data)
        whole = self.record | record.finished(training.history, training.best["epoch"], {}, rule, None, probe)
        whole["environment"] = whole["environment"] | {"finished": record.now()}
        artifacts.save_json(artifacts.record_path(self.name), whole)
        self.record = whole
        self.close()
        self.checkpoint.delete()

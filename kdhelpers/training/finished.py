"""Finished trainings: one process trains a run at a time, and what is finished is found and loaded."""

import contextlib
import sys
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn

from kdhelpers import artifacts
from kdhelpers.training import record
from kdhelpers.training.run import Run
from kdhelpers.weights.load import load_model, read_weights


@contextlib.contextmanager
def run_lock(identity: str) -> Iterator[None]:
    """One process trains a run at a time (under torchrun: one group, held by rank 0); others wait, and say so."""
    if dist.is_initialized() and dist.get_rank() > 0:
        yield
        return
    path = artifacts.run_lock_path(identity)
    try:
        with artifacts.lock(path, wait=False):
            pass
    except BlockingIOError:
        print("this run is being trained by another process; waiting for it to end", file=sys.stderr)
    with artifacts.lock(path):
        yield


def find_finished_on_all_ranks(described: dict, device: torch.device) -> tuple[nn.Module, dict] | None:
    """`find_finished`, the same on every rank of a group."""
    sought = record.training_facts(described)
    found = find_finished(sought, device)
    if _agreed(found is not None):
        return found or find_finished(sought, device)  # a rank that looked before the writer had ended
    return None


def _agreed(value: bool) -> bool:
    """Rank 0's value on every rank: its files may change between two ranks' looks."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def find_finished(sought: dict, device: torch.device) -> tuple[nn.Module, dict] | None:
    """Network and record of the finished training of those facts, if its record, sidecar and weights agree."""
    for stored in artifacts.records():
        if stored["status"] == "finished" and record.training_facts(stored) == sought:
            path = artifacts.weights_path(stored["name"])
            if not path.is_file():  # a record that came with the checkout, weights do not
                continue
            try:
                weights = read_weights(path)
                wanted = stored["identity"], stored["weights"]["sha256"]
                if (weights.description.get("identity"), weights.sha256) != wanted:
                    raise ValueError(f"the weights of {stored['name']} are not those of its record")
                return load_model(weights, device=str(device)), stored
            except (OSError, ValueError) as error:
                print(f"training again: {error}", file=sys.stderr)
    return None


def add_alias(run: Run, stored: dict) -> None:
    """Give the weights the name that the run asks for as well, where the training is stored under another one.

    A copy of weights and sidecar, no second record: one training counts once. A name that another run has stays as it
    is; what this very run left unfinished under it goes.
    """
    name, identity = run.artifact_name, stored["identity"]
    writes = not (dist.is_initialized() and dist.get_rank() > 0)
    own = (name, f"{name}-{identity[:8]}")
    if not writes or not run.name or stored["name"] in own or stored["status"] != "finished":
        return
    path, original = artifacts.weights_path(name), artifacts.weights_path(stored["name"])
    described = artifacts.load_json(original.with_suffix(".json")) | {"name": name, "copy_of": stored["name"]}
    if artifacts.belongs_to_another(name, identity):
        print(f"this run is stored as {stored['name']}; {name} is another and stays", file=sys.stderr)
    elif not path.is_file() or not path.with_suffix(".json").is_file():
        artifacts.record_path(name).unlink(missing_ok=True)
        artifacts.save_json(path.with_suffix(".json"), described)  # alone it describes nothing; bare weights would load
        artifacts.write_atomic(path, original.read_bytes())
        print(f"this run is stored as {stored['name']}; {name} is a copy of it", file=sys.stderr)

"""Finished trainings: one process trains a run at a time; a finished run is found and loaded."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist
from torch import nn

from kdhelpers import artifacts
from kdhelpers.messages import inform
from kdhelpers.training.checkpoint import rename_checkpoint
from kdhelpers.training.group import is_writer, require_same_files
from kdhelpers.training.inputs import Inputs, earlier_identity, facts_of_record
from kdhelpers.training.run import Run
from kdhelpers.weights.head import head_path
from kdhelpers.weights.load import find_weights, load_model


@contextlib.contextmanager
def run_lock(identity: str) -> Iterator[None]:
    """Hold the run against other processes (under torchrun rank 0 holds it for its group); print it if that waits."""
    if not is_writer():
        yield
        return
    path = artifacts.run_lock_path(identity)
    try:
        with artifacts.lock(path, wait=False):
            pass
    except BlockingIOError:
        inform("this run is being trained by another process; waiting for it to end")
    with artifacts.lock(path):
        yield


def find_finished_on_all_ranks(inputs: Inputs) -> tuple[nn.Module, dict] | None:
    """`find_finished` with the outcome of rank 0 on every rank: files may change between the ranks' searches."""
    found = find_finished(inputs)
    if not dist.is_initialized():
        return found
    agreed = [found is not None]
    dist.broadcast_object_list(agreed, src=0)
    found = (found or find_finished(inputs)) if agreed[0] else None
    require_same_files(found is not None)
    return found


def find_finished(inputs: Inputs) -> tuple[nn.Module, dict] | None:
    """Network and record of the finished training of these inputs, if its record, sidecar and weights agree."""
    for record in artifacts.records():
        # A record may have come with the checkout, which has no weights.
        if record["status"] != "finished" or not artifacts.weights_path(record["name"]).is_file():
            continue
        if facts_of_record(record) != inputs.facts:
            continue
        try:
            weights = find_weights(record["name"])
            stored = weights.description.get("identity"), weights.sha256
            if stored != (record["identity"], record["weights"]["sha256"]):
                raise ValueError(f"the weights of {record['name']} are not the weights of its record")
            return load_model(weights, device=str(inputs.device)), record
        except (OSError, ValueError) as error:
            inform(f"training again: {error}")
    return None


def adopt_earlier_files(inputs: Inputs) -> None:
    """Give the files of this training that an earlier version stored under another identity the present one.

    So an interrupted training continues from its checkpoint, and a training that is repeated replaces its own files.
    """
    records = artifacts.records()
    same = {record["identity"] for record in records if facts_of_record(record) == inputs.facts}
    for earlier in {earlier_identity(inputs), *same} - {inputs.identity} if is_writer() else ():
        checkpoint, present = artifacts.checkpoint_path(earlier), artifacts.checkpoint_path(inputs.identity)
        paths = [path for path in artifacts.folder("weights").glob("*.json") if _has(path, earlier)]
        # Records come last, so that an interrupted adoption is repeated.
        paths += [artifacts.record_path(record["name"]) for record in records if record["identity"] == earlier]
        if not paths and not checkpoint.is_file():
            continue
        with run_lock(earlier):
            if checkpoint.is_file() and not present.is_file():
                rename_checkpoint(checkpoint, present)
            for path in paths:
                artifacts.save_json(path, artifacts.load_json(path) | {"identity": inputs.identity})


def _has(path: Path, identity: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a damaged file is of no run
        content = artifacts.load_json(path)
        return isinstance(content, dict) and content.get("identity") == identity
    return False


def add_alias(run: Run, record: dict) -> None:
    """Store the weights under the name of the run too, if the training is stored under another one.

    Weights, head and sidecar are copied, the record is not: one training counts once. A name that another run has
    stays with it; what this run left unfinished under its name is removed.
    """
    name, identity = run.artifact_name, record["identity"]
    own_name = re.fullmatch(rf"{re.escape(name)}(-[0-9a-f]{{8}})?", record["name"])
    if not is_writer() or not run.name or own_name or record["status"] != "finished":
        return
    path, original = artifacts.weights_path(name), artifacts.weights_path(record["name"])
    description = artifacts.load_json(original.with_suffix(".json")) | {"name": name, "copy_of": record["name"]}
    heads = [head_path(path)] if "head" in description else []
    if artifacts.belongs_to_another(name, identity):
        inform(f"this run is stored as {record['name']}; {name} is another run and stays")
    elif not all(file.is_file() for file in (path, path.with_suffix(".json"), *heads)):
        artifacts.delete(artifacts.record_path(name))
        artifacts.save_json(path.with_suffix(".json"), description)  # first: bare weights would load without it
        for head in heads:
            artifacts.write_atomic(head, head_path(original).read_bytes())
        artifacts.write_atomic(path, original.read_bytes())
        inform(f"this run is stored as {record['name']}; {name} is a copy of it")

"""One training as a command: `python -m kdhelpers train`, and `python -m kdhelpers.training` under torchrun."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from kdhelpers import artifacts
from kdhelpers.display.progress import Progress, TerminalProgress
from kdhelpers.training.fit import Trained, fit
from kdhelpers.training.named import run_of
from kdhelpers.training.run import Run


def run_from(words: Sequence[str]) -> Run:
    """The Run of words such as `dataset=digits` and of a JSON file, whose values the other words replace.

    The file holds the fields of a Run, or is a result record. Raises ValueError for any other word.
    """
    files = [word for word in words if word.endswith(".json") and "=" not in word]
    pairs = [word.partition("=") for word in words if word not in files]
    if bad := [name for name, sign, value in pairs if not (name and sign and value)]:
        raise ValueError(f"train = {bad[0]}: is neither NAME=VALUE nor a JSON file; write for instance model=resnet8")
    names = [name for name, _, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1] or files[1:]:
        raise ValueError(f"train = {twice[0]}: is given besides another; keep one")
    stored = artifacts.load_json(files[0]) if files else {}
    if not isinstance(stored, dict):
        raise ValueError(f"train = {files[0]}: does not hold the fields of a Run; write them as a JSON object")
    return run_of(stored.get("run", stored) | {name: value for name, _, value in pairs})


def train(run: Run, **options: bool) -> Trained | None:
    """`fit` with progress on the terminal; under torchrun every process takes its share, and rank 0 alone returns."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    speaks = not dist.is_initialized() or dist.get_rank() == 0
    trained = fit(run, progress=TerminalProgress() if speaks else Progress(), **options)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    return trained if speaks else None


def ending(trained: Trained) -> str:
    """The test accuracy, the stored files and the next command."""
    files = {
        "weights": trained.weights_path,
        "description": trained.weights_path.with_suffix(".json"),
        "record": trained.record_path,
    }
    lines = [f"  {content:<12} {_short(path)}" for content, path in files.items()]
    loaded = " (loaded: it was trained before)" if trained.cached else ""
    accuracy = f"{trained.name}: test top-1 {trained.metrics['test_top1_pct']:.2f} %{loaded}"
    return "\n".join([accuracy, *lines, "next:", f"  python -m kdhelpers {_next(trained)}"])


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _next(trained: Trained) -> str:
    """Of a teacher the training of a student; of a student its comparison with the baseline, if that is stored."""
    run = trained.run
    if run.role == "teacher":
        teacher = run.model if trained.name == f"teacher_{run.model}_{run.dataset}" else trained.name
        return f"train dataset={run.dataset} model=resnet8 method=lm teacher={teacher}"
    baselines = [record["name"] for record in artifacts.records() if _is_baseline(record, run)]
    return f"compare {trained.name} {baselines[0]}" if baselines and run.method != "si" else "report --open"


def _is_baseline(record: dict, run: Run) -> bool:
    """Whether the record is of the same network, trained without a teacher on the same data."""
    fields = record.get("run") or {}
    wanted = {"role": "student", "method": "si", "dataset": run.dataset, "model": run.model, "seed": run.seed}
    return record["status"] == "finished" and wanted.items() <= fields.items()

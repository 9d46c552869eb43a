"""One training as a command: `python -m kdhelpers train`, and `python -m kdhelpers.training` under torchrun."""

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from kdhelpers import artifacts
from kdhelpers.device import pick_device
from kdhelpers.display.progress import Progress, TerminalProgress
from kdhelpers.messages import FAULTS, one_line
from kdhelpers.python_paths import mark
from kdhelpers.training.controls import without_teacher
from kdhelpers.training.fit import Trained, fit
from kdhelpers.training.group import lost_process_named
from kdhelpers.training.named import run_of
from kdhelpers.training.run import Run, distinctive

LONGEST_WAIT = timedelta(hours=12)  # for rank 0, which waits for the run's lock, fits a probe and tests alone


def run_from(words: Sequence[str]) -> Run:
    """The Run of words such as `dataset=digits` and of a JSON file, whose values the other words replace.

    The file holds the fields of a Run, or is a result record. Raises ValueError for any other word.
    """
    files = [word for word in words if word.endswith(".json") and "=" not in word]
    pairs = [word.partition("=") for word in words if word not in files]
    if bad := [name for name, sign, _ in pairs if not (name and sign)]:
        raise ValueError(f"train = {bad[0]}: is neither NAME=VALUE nor a JSON file; write for instance model=resnet8")
    names = [name for name, _, _ in pairs]
    if empty := [name for name, _, value in pairs if not value]:
        raise ValueError(f"{empty[0]}: has no value; write for instance model=resnet8")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]}: given twice; keep one")
    if files[1:]:
        raise ValueError(f"train = {files[1]}: is a second file; keep one")
    if files and not Path(files[0]).is_file():
        raise FileNotFoundError(f"train = {files[0]}: no such file; give the path of a JSON file")
    stored = artifacts.load_json(files[0], "correct it") if files else {}
    if not isinstance(stored, dict):
        raise ValueError(f"train = {files[0]}: does not hold the fields of a Run; write them as a JSON object")
    given = {name: value for name, _, value in pairs}
    if not files:
        return run_of(given)
    with artifacts.reading(files[0], "correct it"):
        return run_of(mark(stored.get("run", stored)) | given)


class CommandProgress(TerminalProgress):
    """Progress on the terminal without the test accuracy, which `ending` prints."""

    def end(self, record: dict) -> None:
        metrics = record.get("metrics") or {}
        super().end(record | {"metrics": {name: metrics[name] for name in metrics if name != "test_top1_pct"}})


def train(run: Run, **options: bool | str | None) -> Trained | None:
    """`fit` with progress on the terminal; under torchrun every process takes its share, and rank 0 alone returns."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        join_processes()
    speaks = not dist.is_initialized() or dist.get_rank() == 0
    with lost_process_named():
        trained = fit(run, progress=CommandProgress() if speaks else Progress(), **options)
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
    return trained if speaks else None


def main(words: Sequence[str]) -> None:
    """What `python -m kdhelpers.training` does; a fault ends it with one line and exit code 1."""
    try:
        trained = train(run_from(words))
    except FAULTS as error:
        if os.environ.get("KD_TRACEBACK"):
            raise
        sys.exit(f"error: {one_line(error)}")
    if trained:
        print(ending(trained))


def join_processes() -> None:
    """Take this process's GPU and start torch.distributed: NCCL between GPUs, else gloo.

    Raises ValueError if the machine has fewer GPUs than processes.
    """
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if torch.cuda.is_available() and processes > gpus:
        raise ValueError(f"nproc_per_node = {processes}: is more than the GPUs of this machine; choose {gpus}")
    device = pick_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # first: NCCL exchanges through the current GPU, which is GPU 0 by default
    nccl = device.type == "cuda" and dist.is_nccl_available()  # Windows has none
    backend = "nccl" if nccl else "gloo"
    dist.init_process_group(backend, timeout=LONGEST_WAIT, device_id=device if nccl else None)


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
        derived = f"teacher_{artifacts.file_name(run.model)}_{run.dataset}"
        teacher = run.model if trained.name == derived else trained.name
        size = f" image_size={run.image_size}" if run.image_size else ""
        return f"train dataset={run.dataset}{size} model=resnet8 method=lm teacher={teacher}"
    control = without_teacher(run).model_dump()
    baselines = [record["name"] for record in artifacts.records() if _is_of(control, record)]
    return f"compare {trained.name} {baselines[0]}" if baselines and run.method != "si" else "report --open"


def _is_of(run: dict, record: dict) -> bool:
    """Whether the record is of the finished run; its name does not count."""
    stored = record.get("run") or {}
    same = distinctive(stored) == distinctive(run) and stored.get("start_from") == run["start_from"]
    return record["status"] == "finished" and same

"""A rank of a distributed training is killed in mid-epoch: do the others end, and does a restart reach the same bits?

CRD trains by 2 and by 3 gloo ranks, each a process that is started by hand, as on several machines: no torchrun ends
the others. It trains once undisturbed. Then one rank after the other kills itself by SIGKILL before a random step. The
others must end by themselves, each with one line. The same command continues, and the tensors that differ in any bit
from the undisturbed training are counted.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measure import row
from kdhelpers import Run, artifacts, fit
from kdhelpers.training import checkpoint, command
from kdhelpers.training.group import LOST
from kdhelpers.training.student import Training

WORLDS = (2, 3)
SECONDS = 300  # in which a rank must end, on a busy machine too
EPOCHS, STEPS = 3, 6  # steps of an epoch: half of the digits, 120 images each
TEACHER = Run(model="resnet8", role="teacher", epochs=0, selection="last", name="teacher_resnet8_digits")
STUDENT = "model=resnet8 method=crd teacher=teacher_resnet8_digits negatives=64 dim=16 precision=fp32"
WORDS = f"{STUDENT} epochs={EPOCHS} batch_size=120 val_fraction=0.5"


def run(threads: int = 1) -> list[dict]:
    """Two rows for each number of ranks: tensors that differ, and the seconds in which the others ended."""
    rows, draw = [], random.Random(time.time_ns())
    for world in WORLDS:
        kills = [(rank, draw.randint(1, STEPS * 2)) for rank in range(world)]
        differing, seconds = after_kills(world, kills)
        places = ", ".join(f"rank {rank} at step {step}" for rank, step in kills)
        rows.append(row(f"{world} ranks, killed: {places}", differing, "tensors differ", None, "0", differing == 0))
        longest = max(seconds)
        rows.append(row(f"{world} ranks: the others end", longest, "s", None, f"< {SECONDS}", longest < SECONDS))
    return rows


def after_kills(world: int, kills: list[tuple[int, int]]) -> tuple[int, list[float]]:
    """The number of tensors that differ, and the seconds until the last rank had ended after each kill."""
    with tempfile.TemporaryDirectory() as undisturbed, tempfile.TemporaryDirectory() as killed:
        for root in (undisturbed, killed):
            store_teacher(root)
        end_of(start(undisturbed, world))
        seconds = []
        for rank, step in kills:
            processes = start(killed, world, rank, step)
            processes[rank].wait(SECONDS)
            began = time.monotonic()
            check_ends(processes, rank)
            seconds.append(time.monotonic() - began)
        end_of(start(killed, world))
        first, second = weights(undisturbed), weights(killed)
    return sum(not torch.equal(first[name], second[name]) for name in first), seconds


def store_teacher(root: str) -> None:
    """A teacher of random weights."""
    before = os.environ.get("KD_ROOT")
    os.environ["KD_ROOT"] = root
    try:
        fit(TEACHER)
    finally:
        os.environ.pop("KD_ROOT")
        os.environ |= {"KD_ROOT": before} if before else {}


def start(root: str, world: int, victim: int = -1, step: int = 0) -> list[subprocess.Popen]:
    """The ranks of a training; `victim` kills itself before its step of this number, counted from 1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"KD_ROOT": root, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(world)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.lost_rank", str(step if rank == victim else 0)],
            env=os.environ | common | {"RANK": str(rank)},
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def end_of(processes: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """Output and errors of each rank; raises RuntimeError if one failed."""
    outputs = [process.communicate(timeout=SECONDS) for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("\n".join(errors for _, errors in outputs))
    return outputs


def check_ends(processes: list[subprocess.Popen], victim: int) -> None:
    """Wait for the ranks after a kill. Raises RuntimeError unless the others end with one line."""
    for rank, process in enumerate(processes):
        _, errors = process.communicate(timeout=SECONDS)
        faults = [line for line in errors.splitlines() if "error" in line.lower() or "Traceback" in line]
        if rank != victim and (process.returncode, faults[-1:]) != (1, [f"error: {LOST}"]) or "Traceback" in errors:
            raise RuntimeError(f"rank {rank}: exit code {process.returncode}, {errors}")


def weights(root: str) -> dict[str, torch.Tensor]:
    return artifacts.load_tensors(Path(root) / "pth_models" / "student_crd_resnet8_digits.pth")


def train(step: int) -> None:
    """What a rank does: the training, with a checkpoint after each epoch; the kill before the step."""
    checkpoint.CHECKPOINT_SECONDS = 0
    usual, numbers = Training.step, itertools.count(1)

    def stepping(training: Training, batch) -> None:
        if next(numbers) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        usual(training, batch)

    Training.step = stepping
    command.main(WORDS.split())


if __name__ == "__main__":
    train(int(sys.argv[1]))

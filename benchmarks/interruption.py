"""kill -9 at random moments: does an interrupted training end with the very weights of an uninterrupted one?

A training of 14 epochs on the embedded digits runs once undisturbed, and once in processes of which the first five are
killed with SIGKILL, each at a random moment (in an epoch, between two, or while its checkpoint is written). Both end
with a weight file; the tensors that differ in any bit are counted.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measure import row
from kdhelpers import Run, artifacts

KILLS = 5
SETTINGS = {"model": "resnet8", "epochs": 14, "batch_size": 64, "lr": 0.05, "seed": 7}
CHILD = """
from kdhelpers import Run, fit
from kdhelpers.training import checkpoint
checkpoint.CHECKPOINT_SECONDS = 0
fit(Run(**{settings!r}), device={device!r})
"""


def run(threads: int = 1, device: str = "cpu") -> list[dict]:
    """One row: tensors that differ; its case names the epochs after which the processes were killed."""
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as killed:
        _start(whole, threads, device).wait()
        reached = _kill_again_and_again(killed, threads, device)
        first, second = _weights(whole), _weights(killed)
    differing = sum(not torch.equal(first[name], second[name]) for name in first)
    case = f"tensors of {len(first)} that differ after {KILLS} kills (epochs done then: {', '.join(map(str, reached))})"
    return [row(case, differing, "tensors", None, "0", differing == 0)]


def _start(root: str, threads: int, device: str) -> subprocess.Popen:
    environment = os.environ | {"KD_ROOT": root, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(settings=SETTINGS, device=device)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def _kill_again_and_again(root: str, threads: int, device: str) -> list[int]:
    draw, reached = random.Random(time.time_ns()), []
    for _ in range(KILLS):
        process = _start(root, threads, device)
        for _ in range(draw.randint(1, 2)):  # it trains: a line per epoch
            process.stderr.readline()
        time.sleep(draw.uniform(0, 1.0))  # about an epoch
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached.append(_epochs_done(root))
    _start(root, threads, device).wait()
    return reached


def _epochs_done(root: str) -> int:
    checkpoints = Path(root).glob("pth_models/checkpoints/*.pt")
    return sum(artifacts.load_tensors(checkpoint)["epochs_done"] for checkpoint in checkpoints)  # of one, or none yet


def _weights(root: str) -> dict[str, torch.Tensor]:
    return artifacts.load_tensors(Path(root) / "pth_models" / f"{Run(**SETTINGS).artifact_name}.pth")

"""The workers of this machine. Like Ray tasks (`ray_workers`) they start a child process: `replay`, or another module.

`schedule.Workers` is their protocol: `start` returns a handle, `poll(handle)` its exit code, or None while it runs.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil  # comes with ipykernel

from kdhelpers.artifacts import data_root, folder, root, save_json
from kdhelpers.suite.processes import end_family
from kdhelpers.suite.profiles import PACKAGE, Job
from kdhelpers.suite.warm_process import ForkedJob, WarmProcess, end_process

REPLAY = "kdhelpers.suite.replay"
Handle = tuple[int, "OwnProcess | ForkedJob"]  # with the number of its slot
JOB_MEMORY_BYTES = 1.5e9  # a digits job: papermill plus a kernel with torch peak at about 1 GB


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(gpus: int) -> int:
    """One job per GPU; without GPUs as many as the cores and the free memory allow (2 on a 2-core machine)."""
    if gpus:
        return gpus
    return max(1, min(cores(), int(psutil.virtual_memory().available / JOB_MEMORY_BYTES)))


def visible_gpus() -> list[str]:
    """Values for CUDA_VISIBLE_DEVICES, one per GPU that this process may use; none if a training takes the CPU."""
    import torch

    from kdhelpers.device import pick_device

    count = torch.cuda.device_count() if pick_device().type == "cuda" else 0
    chosen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (chosen or [str(number) for number in range(count)])[:count]


def prepend(variable: str, path: Path) -> str:
    return os.pathsep.join([str(path), *filter(None, [os.environ.get(variable)])])


def job_environment(copy: str) -> dict[str, str]:
    """Variables that give the kernel this interpreter, this checkout and this artifacts' root."""
    return {
        "JUPYTER_PATH": prepend("JUPYTER_PATH", _kernels()),
        "PYTHONPATH": prepend("PYTHONPATH", PACKAGE.parent),
        "KD_ROOT": str(root()),
        "KD_DATA": str(data_root()),
        "KD_EXECUTED": copy,
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else every kernel start logs a debugger warning
        "PYTHONUTF8": "1",
    }


def _kernels() -> Path:
    """A Jupyter path whose `python3` kernel is this interpreter; the user's may be missing or another."""
    from ipykernel.kernelspec import get_kernel_dict

    kernel = get_kernel_dict()
    kernel["argv"][0] = "python"  # Jupyter reads it as sys.executable, on every host of a Ray cluster
    home = folder("executed") / ".jupyter"
    save_json(home / "kernels" / "python3" / "kernel.json", kernel)
    return home


class OwnProcess(subprocess.Popen):
    """A job's own process; the job runs while its stdin is open."""

    def end(self) -> None:
        with suppress(BrokenPipeError):  # it has ended
            self.stdin.close()


def replay_process(order: dict, environment: dict[str, str], log: str, module: str = REPLAY) -> OwnProcess:
    """Start the module with its order."""
    Path(log).unlink(missing_ok=True)  # a job that Ray starts again may still write on a machine that Ray has lost
    with open(log, "wb") as output:
        process = OwnProcess(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,  # a Ctrl-C reaches the suite only, which ends its children in order
        )
    with suppress(BrokenPipeError):  # it died at once; `poll` returns its exit code
        process.stdin.write(json.dumps(order, default=str).encode() + b"\n")
        process.stdin.flush()
    return process


class LocalWorkers:
    """`count` processes of this machine; they take the GPUs in turn and share the cores evenly.

    On Linux without a GPU those of notebooks are forks of a `WarmProcess`. macOS's libraries and CUDA do not survive a
    fork. module: what a process runs; it reads its order from stdin.
    """

    def __init__(self, count: int | None = None, module: str = REPLAY):
        self.module = module
        self.gpus = visible_gpus()
        self.at_once = count = count or default_workers(len(self.gpus))
        self.threads = max(1, cores() // count)
        self.slots = list(range(count))
        self.warm: WarmProcess | None = None
        self.forks = sys.platform == "linux" and not self.gpus and module == REPLAY
        self.description = f"{count} workers, {self.threads} threads each, {len(self.gpus)} GPUs"

    def free(self) -> bool:
        return bool(self.slots)

    def start(self, job: Job, order: dict, log: str, copy: str) -> Handle:
        slot = self.slots[0]
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(self.threads))}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        environment |= job_environment(copy)
        if not self.forks:
            process = replay_process(order, environment, log, self.module)
        else:
            if self.warm is None or self.warm.has_ended():
                self.warm = WarmProcess(environment)
            process = self.warm.start(order, environment, log)
        self.slots.remove(slot)  # now, since a start may fail
        return slot, process

    def poll(self, handle: Handle) -> int | None:
        slot, process = handle
        if process.poll() is not None:
            process.end()
            self.slots.append(slot)
        return process.returncode

    def end(self, handle: Handle) -> None:
        handle[1].end()

    def kill(self, handle: Handle) -> None:
        end_family(handle[1].pid)

    def stop(self, handles: list[Handle]) -> None:
        if self.warm:
            self.warm.stop()
            return
        for handle in handles:
            self.end(handle)
        for _, process in handles:
            end_process(process)

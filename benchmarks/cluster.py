"""The suite on a Ray cluster of two machines, of which one is lost in mid-training: is everything done once, and equal?

The machines are network namespaces with a cable between them. Each has a `ray start` of one CPU, a working folder and
a /tmp/ray of its own; the artifacts' root is common. The suite trains a teacher and students on the digits. While a job
trains on the second machine, the machine is lost: "power" kills all its processes by SIGKILL, "raylet" kills Ray's
process alone, so that the job lives on for a moment while Ray starts it again on the first machine.

The weights are compared with those of the suite on this machine. Namespaces need root and Linux.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch

from benchmarks.measure import note, row
from kdhelpers import artifacts

LOSSES = ("power", "raylet")
SECONDS = 1800  # of a suite, on a busy machine too
PORT = 6379
STARTS = 5  # tries of `ray start`: Ray gives its agent 15 s, too few on a busy machine
PATIENT = {"RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600", "RAY_raylet_start_wait_time_s": "600", "RAY_worker_niceness": "0"}
OPEN = {"RAY_AUTH_MODE": "disabled"}  # else each machine needs the token of the first
COMMON = {"dataset": "digits", "augmentation": "none", "training": "image_size=16 precision=fp32"}
JOBS = [
    {"name": "teacher", "notebook": "01_teacher", "parameters": {**COMMON, "teacher": "resnet8", "epochs": 3}},
    {
        "name": "student",
        "notebook": "02_independent_student",
        "seeds": "each",
        "parameters": {**COMMON, "student": "resnet8", "epochs": 12},
    },
    {
        "name": "kd",
        "notebook": "04_logit_matching",
        "needs": ["teacher", "student"],
        "parameters": {**COMMON, "teacher": "resnet8", "student": "resnet8", "epochs": 3},
    },
]


def run(threads: int = 1, losses: tuple[str, ...] = LOSSES, seeds: tuple[int, ...] = (0, 1)) -> list[dict]:
    """A row for each loss and each of its checks; none where the machines cannot be made."""
    rows = []
    if sys.platform != "linux" or os.geteuid() or not shutil.which("ip") or not find_spec("ray"):
        note("cluster: needs Linux, root, the command ip, and Ray; left out")
        return rows
    with tempfile.TemporaryDirectory() as folder:
        note("the suite on this machine ...")
        command, environment = suite_command(Path(folder) / "alone", seeds, "--workers", "1")
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)
        for loss in losses:
            note(f"the suite on two machines, loss: {loss} ...")
            root = Path(folder) / loss
            with cluster(root) as machines:
                took = lose_one(root, machines, seeds, loss)
            rows += rows_of(loss, took, Path(folder) / "alone", root)
    return rows


def rows_of(loss: str, took: dict[str, float], alone: Path, root: Path) -> list[dict]:
    """What must be 0, and how long it took."""
    state = json.loads((root / "notebooks/executed/cluster.json").read_text())["jobs"]
    faults = {
        f"jobs of {len(state)} that are not done": sum(one["state"] != "done" for one in state.values()),
        "files that differ from the suite on this machine": len(differing(alone, root)),
        "records and weights that are damaged or unfinished": len(damaged(root)),
    }
    rows = [row(f"{loss}: {what}", count, "", None, "0", count == 0) for what, count in faults.items()]
    return rows + [row(f"{loss}: {what}", seconds, "s") for what, seconds in took.items()]


def weights_of(root: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.name: artifacts.load_tensors(path) for path in sorted((root / "pth_models").glob("*.pth"))}


def differing(first: Path, second: Path) -> list[str]:
    """The weight files of either root that the other lacks or has with other bits."""
    one, other = weights_of(first), weights_of(second)
    return [
        name for name in {*one, *other} if name not in one or name not in other or not _same(one[name], other[name])
    ]


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def damaged(root: Path) -> list[str]:
    """Records that are not finished or whose weights are not theirs, and what a write left."""
    bad = [str(path) for path in (*root.glob("json_results/.*.tmp"), *root.glob("pth_models/.*.tmp"))]
    for path in (root / "json_results").glob("*.json"):
        record = json.loads(path.read_text())
        stored = artifacts.sha256(root / "pth_models" / f"{record['name']}.pth")
        if record["status"] != "finished" or stored != record["weights"]["sha256"]:
            bad.append(path.name)
    return bad


@dataclass(frozen=True)
class Machine:
    """A network namespace with an address; `start` runs a command in it."""

    name: str
    address: str
    folder: Path

    def start(self, command: list[str], **options) -> subprocess.Popen:
        """Its /tmp/ray and its working folder are its own."""
        for part in ("ray", "work"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        enter = f'mount --bind {self.folder / "ray"} /tmp/ray && cd {self.folder / "work"} && exec "$@"'
        return subprocess.Popen(["ip", "netns", "exec", self.name, "sh", "-c", enter, "sh", *command], **options)

    def processes(self) -> list[psutil.Process]:
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return [psutil.Process(int(number)) for number in listed.stdout.split() if psutil.pid_exists(int(number))]

    def kill(self, only: str = "") -> None:
        """SIGKILL for all its processes, or for those of one program."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if only in process.name():
                    process.send_signal(signal.SIGKILL)

    def ray(self, head: Machine) -> None:
        """`ray start`, of one CPU. jsonschema would compile a grammar for 4 s in each of its processes."""
        role = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        role = role if self is head else [f"--address={head.address}:{PORT}"]
        size = ["--num-cpus=1", f"--object-store-memory={80 * 2**20}", "--disable-usage-stats"]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *role, *size]
        instead = self.folder / "stub" / "rfc3987_syntax.py"
        artifacts.write_atomic(instead, b"raise ImportError")
        own = {"PYTHONPATH": str(instead.parent), **PATIENT, **OPEN}
        command.append(f"--node-ip-address={self.address}")
        if not any(self._starts(command, os.environ | own) for _ in range(STARTS)):
            raise RuntimeError(self.folder.with_suffix(".log").read_text()[-2000:])

    def _starts(self, command: list[str], environment: dict[str, str]) -> bool:
        path = self.folder.with_suffix(".log")
        with open(path, "wb") as log:
            process = self.start(command, env=environment, stdout=log, stderr=log)
        wait_until(lambda: b"Ray runtime started" in path.read_bytes() or process.poll() is not None, "ray start")
        if process.poll() is not None:
            self.kill()
        return process.poll() is None


@contextlib.contextmanager
def cluster(root: Path) -> Iterator[list[Machine]]:
    """Two machines with Ray; they end with the context."""
    places = [root.with_name(f"{root.name}_machine{number}") for number in (1, 2)]
    names = [f"kd{os.getpid()}-{number}" for number in (1, 2)]
    addresses = ("10.77.0.1", "10.77.0.2")
    machines = [Machine(*facts) for facts in zip(names, addresses, places, strict=True)]
    try:
        _connect(machines)
        for machine in machines:
            machine.folder.mkdir(parents=True)
            machine.ray(machines[0])
        yield machines
    finally:
        for machine in machines:
            machine.kill()
            _ip("netns", "del", machine.name)


def _connect(machines: list[Machine]) -> None:
    for machine in machines:
        _ip("netns", "add", machine.name)
    first, second = (machine.name for machine in machines)
    _ip("-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
    for machine in machines:
        _ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", "cable")
        for device in ("lo", "cable"):
            _ip("-n", machine.name, "link", "set", device, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Raise TimeoutError that says what was waited for."""
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.2)


def suite_command(root: Path, seeds: tuple[int, ...], *options: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the suite in a root."""
    root.mkdir(exist_ok=True)
    profile = root / "cluster.yaml"
    profile.write_text(json.dumps(JOBS))  # JSON is YAML
    command = [sys.executable, "-m", "kdhelpers", "suite", "--profile", str(profile), "--seeds", *map(str, seeds)]
    checkout = str(Path(__file__).parents[1])
    environment = os.environ | {"KD_ROOT": str(root), "PYTHONPATH": checkout, "OMP_NUM_THREADS": "1", **OPEN}
    return [*command, *options], environment


def lose_one(root: Path, machines: list[Machine], seeds: tuple[int, ...], loss: str) -> dict[str, float]:
    """The suite on the machines, the second of which is lost while a job trains on it; seconds, by what took them."""
    command, environment = suite_command(root, seeds, "--ray", f"{machines[0].address}:{PORT}")
    began = time.monotonic()
    with open(root / "suite.log", "wb") as log:
        process = machines[0].start(command, env=environment, stdout=log, stderr=log)
    wait_until(lambda: training_on(machines[1], root) or process.poll() is not None, "a training on the second machine")
    lost = training_on(machines[1], root)
    note(f"lost while it trained: {', '.join(lost)}")
    machines[1].kill("raylet" if loss == "raylet" else "")
    when = time.monotonic()
    process.wait(SECONDS)
    return {
        "the suite": time.monotonic() - began,
        f"after the loss, which hit {', '.join(lost)}": time.monotonic() - when,
    }


def training_on(machine: Machine, root: Path) -> list[str]:
    """The jobs whose kernels run there, and whose trainings have begun."""
    copies = set()
    for process in machine.processes():
        with contextlib.suppress(psutil.Error):
            copies |= {process.environ().get("KD_EXECUTED")} if "ipykernel_launcher" in process.cmdline() else set()
    records = [artifacts.load_json(path) for path in (root / "json_results").glob("*.json")]
    return sorted({Path(r["notebook"]).stem for r in records if r["status"] == "running" and r["notebook"] in copies})

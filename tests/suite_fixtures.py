"""What the tests of the suite share: tiny notebooks, a root that holds them, profiles of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import nbformat
import pytest

from kdhelpers.suite.replay import MARKER

RECORD = """
import json, os, sys
record = {"schema": 1, "name": name, "identity": "0" * 64, "status": "finished", "notebook": os.environ["KD_EXECUTED"],
          "run": {"dataset": "digits", "role": "student", "method": "si", "model": "resnet8", "seed": seed,
                  "hyperparameters": {}}, "metrics": {"test_top1_pct": 62.5},
          "interpreter": sys.executable, "folder": os.getcwd(), "threads": os.environ["OMP_NUM_THREADS"]}
root = os.environ["KD_ROOT"]
os.makedirs(f"{root}/json_results", exist_ok=True); os.makedirs(f"{root}/pth_models", exist_ok=True)
open(f"{root}/pth_models/{name}.pth", "w").close()
json.dump(record, open(f"{root}/json_results/{name}.json", "w"))
"""
NOTEBOOKS = {
    "good": ["name: str = 'one'  # of the record\nseed: int = 0  # seed\nforce_retrain: bool = False  # anew", RECORD],
    "raises": ["rate: float = 0.1  # how fast", "raise ValueError(f'rate = {rate}:\\n too fast')", "1"],
    "killed": ["x = 1", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "1"],
    "leaves": ["x = 1", "raise SystemExit(0)", "1"],
    "sleeps": [
        "length = 60",
        "import os, time; open(os.environ['KD_ROOT'] + '/pid', 'w').write(str(os.getpid()))",
        "time.sleep(length)",
    ],
}


def write_notebook(folder: Path, name: str, cells: list[str]) -> None:
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    )
    notebook.cells = [nbformat.v4.new_markdown_cell(f"# The {name} one"), *map(nbformat.v4.new_code_cell, cells)]
    notebook.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, folder / f"{name}.ipynb")


def make_root(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (path / "notebooks" / "profiles").mkdir(parents=True)
    for name, cells in NOTEBOOKS.items():
        write_notebook(path / "notebooks", name, cells)
    monkeypatch.setenv("KD_ROOT", str(path))
    return path


def profile(root: Path, *jobs: dict, name: str = "tiny") -> str:
    path = root / "notebooks" / "profiles" / f"{name}.yaml"
    path.write_text(json.dumps(jobs))  # JSON is YAML
    return name


def job(name: str, notebook: str = "good", **rest) -> dict:
    return {"name": name, "notebook": notebook, **rest}


def state(root: Path, name: str = "tiny") -> dict:
    return json.loads((root / "notebooks" / "executed" / f"{name}.json").read_text())["jobs"]


class FakeWorkers:
    """Runs nothing: a started job ends at the next poll, with its end marker set where it succeeds."""

    description = "fakes"

    def __init__(self, started: list[str], exit_code: int = 0, marked: bool = True, count: int = 2, failing=()):
        self.failing = failing  # names of jobs that end with exit code 1
        self.started, self.exit_code, self.marked, self.count = started, exit_code, marked, count
        self.at_work, self.most, self.orders, self.stopped = 0, 0, {}, []

    def free(self) -> bool:
        return self.at_work < self.count

    def start(self, job, order: dict, log: str, copy: str) -> dict:
        self.started.append(job.name)
        self.orders[job.name] = order
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        marker = {MARKER: {"fingerprint": order["fingerprint"]}} if self.marked else {}
        Path(order["copy"]).write_text(json.dumps({"metadata": marker}))
        Path(log).write_text("")
        return order | {"job": job.name}

    def poll(self, handle: dict) -> int:
        self.at_work -= 1
        return 1 if handle["job"] in self.failing else self.exit_code

    def stop(self, handles: list) -> None:
        self.stopped += handles


def wait_for(path: Path) -> int:
    """The process id that a kernel writes there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.is_file() and path.read_text():
            return int(path.read_text())
        time.sleep(0.1)
    raise TimeoutError(path)


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").is_file() and Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
            return True
        time.sleep(0.1)
    return False

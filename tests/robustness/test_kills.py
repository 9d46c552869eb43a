"""Jobs that are killed while they write, and disks that fail: the short version of `python -m benchmarks kills`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
KILLS = {
    "training": 12,
    "lockstep": 6,
    "head": 6,
    "again": 4,
    "tuning": 4,
    "weights": 6,
    "gallery": 4,
    "download": 4,
    "suite": 6,
    "data set": 8,
}
DISKS = {"training": 5, "download": 3, "data set": 6, "suite": 4}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the harness forks, and reads /proc")


def tallies(kind: str, counts: dict[str, int]) -> dict[str, list]:
    """{case: [starts that were hit, faults]} from a process of its own: a fork of this one has its threads."""
    return answer("-m", "benchmarks.kills", kind, *(f"{key}={count}" for key, count in counts.items()))


UNSAFE = """
from pathlib import Path
from benchmarks.kills.__main__ import main
from kdhelpers.artifacts import files

def write(path, content):
    with open(path, "wb") as file:
        file.write(content)
    return Path(path)

files.write_atomic = write
main("kill", "training=16")
"""


def answer(*arguments: str) -> dict[str, list]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_harness_finds_files_that_are_half_written():
    _, faults = answer("-c", UNSAFE)["training"]
    assert any("damaged" in fault for fault in faults)


@pytest.fixture(scope="module")
def killed():
    return tallies("kill", KILLS)


@pytest.mark.parametrize("key", KILLS)
def test_a_job_that_is_killed_ends_with_the_bits_of_one_that_is_not(killed, key):
    kills, faults = killed[key]
    assert faults == []
    assert kills >= KILLS[key] - 1


@pytest.mark.parametrize("kind", ["full", "read_only", "denied"])
def test_a_disk_that_fails_is_named_with_the_remedy_and_the_next_start_ends_well(kind):
    found = tallies(kind, DISKS)
    assert {key: faults for key, (_, faults) in found.items() if faults} == {}
    assert all(starts for starts, _ in found.values())

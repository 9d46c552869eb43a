"""A job's files in notebooks/executed/, its result records, and the reason of a failure in its log."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kdhelpers.artifacts import folder, load_record, records, weights_path
from kdhelpers.suite.profiles import Job

LOG_BYTES = 1 << 16  # the end of a log, which has the reason
FULL_BYTES = 1 << 20


class Copies(NamedTuple):
    """A job's files in notebooks/executed/: papermill writes `running`, which is renamed at the end."""

    executed: Path
    running: Path
    failed: Path
    log: Path
    link: str  # the executed copy in the result records, relative to the root


def copies_of(job: Job) -> Copies:
    endings = ".ipynb .running.ipynb .failed.ipynb .log".split()
    paths = (folder("executed") / f"{job.name}{ending}" for ending in endings)
    return Copies(*paths, f"notebooks/executed/{job.name}.ipynb")


def records_of(job: Job) -> list[dict]:
    """The finished result records of this job's notebook; a job of the same name may use other data.

    A record from elsewhere may lack its run or its metrics.
    """
    return [
        record
        for record in records()
        if record.get("notebook") == copies_of(job).link
        and record.get("status") == "finished"
        and record.get("run")
        and record.get("metrics")
        and job.parameters.get("dataset", record["run"].get("dataset")) == record["run"].get("dataset")
    ]


def is_stored(name: str) -> bool:
    with suppress(ValueError):
        record = load_record(name)
        return bool(record) and record.get("status") == "finished" and weights_path(name).is_file()
    return False


def reason(log: Path, exit_code: int) -> str:
    """The log's last `error:` line; a killed process leaves none."""
    with suppress(FileNotFoundError):  # a task of Ray that never started
        with open(log, "rb") as file:
            file.seek(-min(log.stat().st_size, LOG_BYTES), os.SEEK_END)
            lines = re.findall(r"^error: (.*)$", file.read().decode("utf-8", "replace"), re.MULTILINE)
        if lines and exit_code > 0:
            return lines[-1]
    killed = f", killed by signal {-exit_code} (out of memory?)" if exit_code < 0 else ""
    full = f", the disk of {log.parent} is full; free some space" * (shutil.disk_usage(log.parent).free < FULL_BYTES)
    return f"exit code {exit_code}{killed}, no end marker{full}; see {log}"

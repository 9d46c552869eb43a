"""The warm process: it imports once what the jobs of a suite import; each job, and its kernel, is a fork of it.

`python -m kdhelpers.suite.warm` reads orders from stdin, one line of JSON each. It writes lines to stdout: [number,
process id, null] of a started job, [number, process id, exit code] of a finished one. It starts no thread and computes
nothing, so a fork of it is in a clean state. The end of stdin ends the jobs.
"""

import contextlib
import json
import os
import runpy
import select
import time
from typing import Any

from kdhelpers.suite.forked import fork, prepare_kernel

INLINE = "module://matplotlib_inline.backend_inline"  # a kernel sets it before matplotlib is imported
POLL_SECONDS = 0.05
HIGHEST_FILE = 4096


def main() -> None:
    os.environ.setdefault("MPLBACKEND", INLINE)
    with contextlib.suppress(ImportError):  # the job that needs it reports it
        _import()
    jobs: dict[int, tuple[int, int]] = {}  # process -> the order's number, the pipe that is open while it is wanted
    rest = b""
    while True:
        if select.select([0], [], [], POLL_SECONDS)[0]:
            if not (chunk := os.read(0, 1 << 16)):
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                _start(json.loads(line), jobs)
        _report(jobs)
    for _, wanted in jobs.values():
        os.close(wanted)
    while jobs:
        time.sleep(POLL_SECONDS)
        _report(jobs)
    os._exit(0)  # at once: nothing is open, and Python would take a second to tidy up its modules


def _import() -> None:
    """Import what a job and the kernel of its notebook import."""
    # ruff: noqa: F401
    import ipykernel.kernelapp
    import jsonschema
    import matplotlib.backends.backend_agg
    import matplotlib_inline.backend_inline
    import pandas.io.formats.style
    import papermill
    import sklearn.datasets
    import sklearn.linear_model
    import sklearn.manifold
    import torch._dynamo  # the first step of any optimiser imports it; it costs as much as torch

    import kdhelpers.analysis
    import kdhelpers.display.notebook
    import kdhelpers.report.published
    import kdhelpers.report.tables
    import kdhelpers.suite.engine
    import kdhelpers.training.sweep


def _start(message: dict[str, Any], jobs: dict[int, tuple[int, int]]) -> None:
    stdin, wanted = os.pipe()
    try:
        process = fork(lambda: _replay(stdin, message["environment"], message["log"]))
    except OSError as error:  # no process or no memory is left: this job fails, the others go on
        os.close(wanted)
        _refuse(message, error)
        return
    finally:
        os.close(stdin)
    with contextlib.suppress(BrokenPipeError):  # it died at once
        os.write(wanted, json.dumps(message["order"]).encode() + b"\n")
    jobs[process] = message["number"], wanted
    _tell(message["number"], process)


def _refuse(message: dict[str, Any], error: OSError) -> None:
    """End a job that was never started; its log has the reason."""
    with contextlib.suppress(OSError), open(message["log"], "w") as log:
        log.write(f"error: cannot start the job: {error.strerror}; end other programs, or lower --workers\n")
    _tell(message["number"], os.getpid(), 1)


def _replay(stdin: int, environment: dict[str, str], log: str) -> None:
    """Be the process that `workers.replay_process` would start."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for target, file in enumerate((stdin, output, output)):
        os.dup2(file, target)
    os.closerange(3, HIGHEST_FILE)  # the pipes of the other jobs among them
    os.environ.update(environment)
    prepare_kernel()
    runpy.run_module("kdhelpers.suite.replay", run_name="__main__")


def _report(jobs: dict[int, tuple[int, int]]) -> None:
    """Write the exit codes of the jobs that have ended."""
    while jobs and (ended := os.waitpid(-1, os.WNOHANG))[0]:
        number, wanted = jobs.pop(ended[0])
        with contextlib.suppress(OSError):  # closed already, at the end of the orders
            os.close(wanted)
        _tell(number, ended[0], os.waitstatus_to_exitcode(ended[1]))


def _tell(number: int, process: int, code: int | None = None) -> None:
    with contextlib.suppress(BrokenPipeError):  # the suite was killed
        os.write(1, json.dumps([number, process, code]).encode() + b"\n")


if __name__ == "__main__":
    main()

"""A job's own process: `python -m kdhelpers.suite.replay` runs a notebook with papermill.

The order is one line of JSON on stdin. The suite keeps stdin open while it wants the job. Its end, by Ctrl-C or by a
`kill -9` of the suite, stops the job and its kernel, on every system and under Ray too.
"""

import _thread
import json
import logging
import os
import shlex
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from kdhelpers.artifacts import load_json, lock
from kdhelpers.suite.processes import adopt_orphans, end_children

MARKER = "kdhelpers"  # in the executed copy's metadata: the notebook ran to its end
DEAD_KERNEL, INTERRUPTED = 138, 130  # exit codes
START_SECONDS = 300  # many kernels on few cores answer late
REASON_CHARACTERS = 500


def replay(notebook: str, copy: str, parameters: dict, fingerprint: str) -> int:
    """Execute `notebook` into `copy` and set the end marker there. Returns the exit code; prints the reason."""
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError

    from kdhelpers.suite.engine import EarlyEnd

    os.environ["KD_COMMAND"] = command(notebook, parameters)  # the records quote it
    try:
        with lock(Path(copy).with_suffix(".lock")):  # this job of a killed suite writes its copy as it ends
            _execute(notebook, copy, parameters, fingerprint)
    except PapermillExecutionError as error:
        return _failed(error.ename, error.evalue)
    except DeadKernelError as error:
        return _failed(str(error), code=DEAD_KERNEL)
    except KeyboardInterrupt:
        return _failed("interrupted", code=INTERRUPTED)
    except EarlyEnd as error:
        return _failed(str(error))
    except Exception as error:  # a missing module, a full disk, a kernel that does not start
        return _failed(type(error).__name__, str(error))
    return 0


def _execute(notebook: str, copy: str, parameters: dict, fingerprint: str) -> None:
    import nbformat
    from papermill import execute_notebook

    from kdhelpers.suite.engine import NAME, EarlyEnd

    executed = execute_notebook(
        notebook,
        copy,
        parameters=parameters,
        engine_name=NAME,
        kernel_name="python3",  # this interpreter, and not the kernel that the notebook names
        language="python",
        cwd=str(Path(notebook).parent),
        progress_bar=False,
        log_output=True,
        start_timeout=START_SECONDS,
        iopub_timeout=START_SECONDS,
    )
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    if any(cell.execution_count is None for cell in code):
        raise EarlyEnd("the notebook stopped before its last cell")
    executed.metadata[MARKER] = {"fingerprint": fingerprint, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    nbformat.write(executed, copy)


def _failed(*parts: str | None, code: int = 1) -> int:
    """Print the reason in one line, the last one of the log that begins with `error:`."""
    reason = " ".join(": ".join(filter(None, parts)).split())
    with suppress(OSError):  # the disk of the log is full
        print(f"error: {reason[:REASON_CHARACTERS]}", flush=True)
    return code


def command(notebook: str, parameters: dict) -> str:
    """The equivalent papermill command, for a shell in the checkout."""
    chosen = [part for name, value in parameters.items() for part in ("-p", name, str(value))]
    source = f"notebooks/{Path(notebook).name}"
    return shlex.join(["papermill", "-k", "python3", "--cwd", "notebooks", source, "out.ipynb", *chosen])


def end_marker(copy: Path) -> str | None:
    """The fingerprint of an executed copy that ran to its end; None for other copies and for files of other kinds."""
    try:
        return load_json(copy, finite=False)["metadata"][MARKER]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stop_with_the_suite() -> None:
    while os.read(0, 1):  # not sys.stdin: its lock would abort the interpreter's shutdown
        pass
    _thread.interrupt_main()  # then papermill shuts its kernel down
    time.sleep(15)
    end_children()
    os._exit(INTERRUPTED)


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    adopt_orphans()
    threading.Thread(target=stop_with_the_suite, daemon=True).start()
    try:
        code = replay(**order)
    finally:
        end_children()  # what the notebook started and left
    sys.exit(code)


if __name__ == "__main__":
    main()

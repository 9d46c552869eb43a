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
from pathlib import Path

from kdhelpers.artifacts import load_json

MARKER = "kdhelpers"  # in the executed copy's metadata: the notebook ran to its end
DEAD_KERNEL, INTERRUPTED = 138, 130  # exit codes


def replay(notebook: str, copy: str, parameters: dict, fingerprint: str) -> int:
    """Execute `notebook` into `copy` and set the end marker there. Returns the exit code; prints the reason."""
    import nbformat
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    os.environ["KD_COMMAND"] = command(notebook, parameters)  # the records quote it
    try:
        executed = execute_notebook(
            notebook,
            copy,
            parameters=parameters,
            kernel_name="python3",
            cwd=str(Path(notebook).parent),
            progress_bar=False,
            log_output=True,
            start_timeout=300,
            execution_timeout=None,
            iopub_timeout=300,  # many kernels on few cores answer late
        )
    except PapermillExecutionError as error:
        print(f"error: {error.ename}: {' '.join(str(error.evalue).split())}", flush=True)
        return 1
    except DeadKernelError:
        print("error: the kernel died (killed from outside, or out of memory?)", flush=True)
        return DEAD_KERNEL
    except KeyboardInterrupt:
        print("error: interrupted", flush=True)
        return INTERRUPTED
    except Exception as error:  # a missing module, a full disk, a kernel that does not start
        print(f"error: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
        return 1
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    if any(cell.execution_count is None for cell in code):  # papermill counts an early exit() as success
        print("error: the notebook stopped before its last cell", flush=True)
        return 1
    executed.metadata[MARKER] = {"fingerprint": fingerprint, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    nbformat.write(executed, copy)
    return 0


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
    os._exit(INTERRUPTED)  # the kernel ends with its parent


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    threading.Thread(target=stop_with_the_suite, daemon=True).start()
    sys.exit(replay(**order))


if __name__ == "__main__":
    main()

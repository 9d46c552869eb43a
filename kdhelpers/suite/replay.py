"""One job in a process of its own: `python -m kdhelpers.suite.replay` runs a notebook with papermill.

The order is one line of JSON on stdin. stdin then stays open for as long as the suite wants the job: its end, be it
a Ctrl-C or a `kill -9` of the suite, stops the job and its kernel, on every system and behind Ray as well.
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

MARKER = "kdhelpers"  # the key in the executed copy's metadata that says: ran to its end
DEAD_KERNEL, INTERRUPTED = 138, 130  # exit codes


def replay(notebook: str, copy: str, parameters: dict, fingerprint: str) -> int:
    """Execute `notebook` into `copy` and set the end marker there; returns the exit code, the reason is printed."""
    import nbformat
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    os.environ["KD_COMMAND"] = command(notebook, parameters)  # the kernel's records quote it
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
            iopub_timeout=300,  # many kernels at once on few cores answer late
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
    except Exception as error:  # a missing module, a full disk, a kernel that does not start: one line all the same
        print(f"error: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
        return 1
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    if any(cell.execution_count is None for cell in code):  # papermill takes an early exit() for success
        print("error: the notebook stopped before its last cell", flush=True)
        return 1
    executed.metadata[MARKER] = {"fingerprint": fingerprint, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    nbformat.write(executed, copy)
    return 0


def command(notebook: str, parameters: dict) -> str:
    """The papermill command that does the same by hand, from the checkout."""
    chosen = [part for name, value in parameters.items() for part in ("-p", name, str(value))]
    source = f"notebooks/{Path(notebook).name}"
    return shlex.join(["papermill", "-k", "python3", "--cwd", "notebooks", source, "out.ipynb", *chosen])


def end_marker(copy: Path) -> str | None:
    """The fingerprint under which this executed copy ran to its end; None where it did not, or is no notebook."""
    try:
        return json.loads(copy.read_bytes())["metadata"][MARKER]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stop_with_the_suite() -> None:
    while os.read(0, 1):  # not sys.stdin: its lock would abort the interpreter's shutdown
        pass
    _thread.interrupt_main()  # papermill then shuts its kernel down
    time.sleep(15)
    os._exit(INTERRUPTED)  # the kernel watches for its parent's end


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    threading.Thread(target=_stop_with_the_suite, daemon=True).start()
    sys.exit(replay(**order))


if __name__ == "__main__":
    main()

"""papermill's client, with a bound on the outputs of a cell and the reason of a dead kernel."""

import signal
from typing import Any

from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger

NAME = "kdhelpers"
CELL_CHARACTERS = 20_000_000
OUTPUTS = ("stream", "display_data", "execute_result")
CAUSES = {"SIGKILL": "out of memory, or killed from outside?", "SIGSEGV": "a crash in compiled code"}


class EarlyEnd(Exception):
    """A notebook that ended before its last cell, which papermill counts as success."""


class Client(PapermillNotebookClient):
    """The outputs of a cell over `CELL_CHARACTERS` are left out, so that a loop that prints fills no memory."""

    def execute(self, **options: Any) -> NotebookNode:
        try:
            return super().execute(**options)
        except DeadKernelError as error:
            raise DeadKernelError(death(self.kernel.poll())) from error

    def execute_cell(self, cell: NotebookNode, cell_index: int, **options: Any) -> NotebookNode:
        self.kernel, self.characters = self.km.provisioner.process, 0
        return super().execute_cell(cell, cell_index, **options)

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        if msg["msg_type"] == "clear_output":
            self.characters = 0
        if msg["msg_type"] in OUTPUTS:
            before, self.characters = self.characters, self.characters + len(str(msg["content"]))
            if self.characters > CELL_CHARACTERS:
                if before <= CELL_CHARACTERS:
                    note = f"\n[kdhelpers: outputs over {CELL_CHARACTERS:,} characters of a cell are left out]\n"
                    cell.outputs.append(new_output("stream", name="stderr", text=note))
                return None
        return super().process_message(msg, cell, cell_index)


def _refuse_exit(execute_reply: dict[str, Any], **_: Any) -> None:
    """The kernel of `exit()` ends a moment later; short cells after it may still run."""
    if any(payload.get("source") == "ask_exit" for payload in execute_reply["content"].get("payload", ())):
        raise EarlyEnd("a cell calls exit(), which ends the kernel")


def death(code: int | None) -> str:
    """The reason of a kernel's end, from its exit code."""
    if code is None or code >= 0:
        return f"the kernel ended with exit code {code}; does a cell call os._exit()?"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"the kernel died of {name}" + (f" ({CAUSES[name]})" if name in CAUSES else "")


class Engine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, start_timeout: int = 60, **options: Any) -> None:
        traits = {name: options[name] for name in ("log_output", "iopub_timeout")} | {"on_cell_executed": _refuse_exit}
        Client(nb_man, kernel_name=kernel_name, startup_timeout=start_timeout, log=logger, **traits).execute()


papermill_engines.register(NAME, Engine)

"""Processes that are forks of the warm process: a job, and the kernel of its notebook."""

import atexit
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner


def fork(work: Callable[[], None]) -> int:
    """The id of a new process, the leader of its session, that does `work` and ends with its exit code."""
    if process := os.fork():
        return process
    code = 1
    try:
        atexit._clear()  # these functions belong to the parent
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class WaitingKernel:
    """A fork of this process that becomes a Jupyter kernel at `start`; Jupyter calls it as a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self):
        orders, self.orders = os.pipe()
        self.returncode: int | None = None
        self.pid = fork(lambda: self._kernel(orders))
        os.close(orders)

    def _kernel(self, orders: int) -> None:
        os.close(self.orders)
        with open(orders, "rb") as file:
            text = file.read()
        if not text:  # its job ended before the kernel was started
            return
        command, environment, folder = json.loads(text)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = command[2:]  # python -m ipykernel_launcher -f FILE
        from ipykernel.kernelapp import IPKernelApp

        parent = f"--IPKernelApp.parent_handle={os.getppid()}"  # the kernel ends with its job
        IPKernelApp.launch_instance([*sys.argv[1:], parent])

    def start(self, command: list[str], environment: dict[str, str], folder: str) -> None:
        with open(self.orders, "wb") as file:
            file.write(json.dumps([command, environment, folder]).encode())

    def poll(self, options: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            process, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if process else None
        return self.returncode

    def wait(self) -> int | None:
        return self.poll(options=0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedProvisioner(LocalProvisioner):
    """Gives Jupyter the waiting kernel of this process instead of a new interpreter."""

    kernel: WaitingKernel  # of this process

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict[str, Any]:
        self.process = ForkedProvisioner.kernel
        self.cwd = kwargs.get("cwd") or os.getcwd()
        self.process.start(cmd, kwargs["env"], self.cwd)
        self.pid = self.pgid = self.process.pid  # it leads its own group
        return self.connection_info


def prepare_kernel() -> None:
    """Fork the kernel of this process's next notebook. Call it before this process starts a thread."""
    ForkedProvisioner.kernel = WaitingKernel()
    factory = KernelProvisionerFactory.instance()
    place = f"{__name__}:{ForkedProvisioner.__name__}"
    factory.provisioners["forked"] = EntryPoint("forked", place, factory.GROUP_NAME)
    factory.default_provisioner_name = "forked"

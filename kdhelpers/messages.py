"""Information for the user: on stderr, in a Jupyter kernel on stdout, because Jupyter displays stderr as an error."""

import sys

FAULTS = (ValueError, OSError, FloatingPointError)  # of the input or the machine: a command prints their one line


def kernel_shell():
    """The shell of this process's Jupyter kernel; None in a script or a terminal."""
    module = sys.modules.get("IPython")  # a kernel has imported it
    shell = module.get_ipython() if module else None
    return shell if hasattr(shell, "kernel") else None


def stream():
    """Where information goes."""
    return sys.stdout if kernel_shell() else sys.stderr


def one_line(error: BaseException) -> str:
    """A fault's text for a command's `error: ...`."""
    return " ".join(str(error).split()).removeprefix("Run: ")


def inform(text: str) -> None:
    print(text, file=stream(), flush=True)

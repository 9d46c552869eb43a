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
    return printable(" ".join(str(error).split()).removeprefix("Run: "))


def inform(text: str) -> None:
    print(printable(text), file=stream(), flush=True)


def printable(text: str) -> str:
    """The text without what a terminal obeys: control characters and marks of direction stand as \\x1b, \\u202e.

    Line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def short(value: object, most: int = 80) -> str:
    """The value on one printable line of at most `most` characters, as a message quotes it."""
    text = " ".join(str(value).split())
    text = printable(text if len(text) <= most else f"{text[: most - 3]}...")
    return text if len(text) <= 2 * most else f"{text[:most]}..."

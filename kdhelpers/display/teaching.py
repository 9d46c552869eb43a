"""What a notebook teaches with: the source of a loss, and the check of an exercise."""

import inspect
import math
from collections.abc import Callable, Sequence
from html import escape
from textwrap import dedent
from typing import Any

import torch

TOLERANCE = 1e-4  # relative


class Source:
    """Python code, coloured in a notebook."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __str__(self) -> str:
        return self.code

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer

        style = "font-family: monospace; font-size: 85%; line-height: 1.35; margin: 0"
        return highlight(self.code, PythonLexer(), HtmlFormatter(noclasses=True, nobackground=True, prestyles=style))


def source(*functions: Callable) -> Source:
    """The code of functions or classes, to read in a notebook."""
    return Source("\n\n".join(dedent(inspect.getsource(function)) for function in functions))


class Answer:
    """The result of `check`: whether the exercise is `solved`, and a table of the cases."""

    def __init__(self, name: str, cases: list[tuple[str, float, float]]) -> None:
        self.name, self.cases = name, cases
        self.wrong = [label for label, given, right in cases if not math.isclose(given, right, rel_tol=TOLERANCE)]
        self.solved = not self.wrong

    def __str__(self) -> str:
        if self.solved:
            return f"Solved: {self.name} is right in all {len(self.cases)} cases."
        return f"Not solved yet: {self.name} is wrong in {len(self.wrong)} of {len(self.cases)} cases."

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = ["".join(f"<td>{escape(text)}</td>" for text in self._row(*case)) for case in self.cases]
        head = "".join(f"<th>{text}</th>" for text in ("case", self.name, "right", "ratio"))
        rows = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<p><b>{escape(str(self))}</b></p><table><tr>{head}</tr>{rows}</table>"

    def _row(self, label: str, given: float, right: float) -> tuple[str, ...]:
        return label, f"{given:.5g}", f"{right:.5g}", f"{given / right:.4g}" if right else "–"


def check(solution: Callable, right: Callable, cases: dict[str, Sequence[Any]]) -> Answer:
    """Compare an exercise's function with the right one: label of a case -> the arguments of both.

    Both return a number or a scalar tensor. An error of `solution` counts as a wrong case and is part of its label.
    """
    results = []
    for label, arguments in cases.items():
        try:
            given = float(solution(*arguments))
        except Exception as error:  # the learner's code may fail in any way
            label, given = f"{label}: {type(error).__name__}: {error}", math.nan
        results.append((label, given, float(right(*arguments))))
    return Answer(solution.__name__, results)


def random_logits(images: int = 4, classes: int = 10, seed: int = 0) -> torch.Tensor:
    """Logits [images, classes] of no network, to try a loss on."""
    return 3 * torch.randn(images, classes, generator=torch.Generator().manual_seed(seed))

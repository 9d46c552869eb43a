"""What a suite shows: on a terminal a table redrawn in place, elsewhere a line per change; the table at the end."""

import shutil
import time
from collections.abc import Callable

import click

from kdhelpers.suite.profiles import Job
from kdhelpers.suite.schedule import Status, records_of

COLORS = {
    "done": "green",
    "unchanged": "green",
    "running": "cyan",
    "failed": "red",
    "blocked": "red",
    "interrupted": "yellow",
}
REDRAW_SECONDS = 1.0


def headline(job: Job, status: Status) -> str:
    """The test accuracy of each run that the job's notebook recorded, or the reason why there is none."""
    from kdhelpers.display.text import MARK
    from kdhelpers.report.results import method_label

    if status.error:
        return status.error
    if status.state not in ("done", "unchanged"):
        return ""
    tested = [record for record in records_of(job) if record["metrics"].get("test_top1_pct") is not None]
    return ", ".join(
        f"{method_label(record['run'])} {record['metrics']['test_top1_pct']:.2f} %{MARK * bool(record.get('notes'))}"
        for record in tested
    )


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def table(rows: list[tuple[str, Status, float | None, str]], width: int) -> list[str]:
    """One line per (job name, status, seconds, headline), cut to `width` columns; 0 cuts nothing."""
    longest = max([3, *(len(name) for name, *_ in rows)])
    lines = [click.style(f"{'job':<{longest}}  {'state':<11}  {'time':>7}  test top-1", bold=True)]
    for name, status, elapsed, text in rows:
        start = f"{name:<{longest}}  {status.state:<11}  {seconds(elapsed):>7}  "
        text = text[: max(0, width - len(start) - 1)] if width else text
        lines.append(click.style((start + text).rstrip(), fg=COLORS.get(status.state)))
    return lines


class Display:
    """Follows a suite: give `changed` and `tick` to it, and call `end` when it is over."""

    def __init__(self, jobs: list[Job], live: bool, clock: Callable[[], float] = time.monotonic):
        size = shutil.get_terminal_size()
        self.jobs = jobs
        self.live = live and len(jobs) + 2 < size.lines  # a table taller than the terminal cannot be redrawn
        self.width, self.clock = size.columns, clock
        self.status: dict[str, Status] = {job.name: Status() for job in jobs}
        self.headlines: dict[str, str] = {}
        self.started: dict[str, float] = {}
        self.drawn_lines, self.drawn_at = 0, float("-inf")

    def changed(self, job: Job, status: Status) -> None:
        self.status[job.name] = status
        self.headlines[job.name] = headline(job, status)
        if status.state == "running":
            self.started[job.name] = self.clock()
        if self.live:
            self._draw()
        else:
            details = "  ".join(filter(None, [seconds(status.seconds), self.headlines[job.name]]))
            click.echo(f"{job.name}: {status.state}  {details}".rstrip())

    def tick(self) -> None:
        if self.live and self.clock() - self.drawn_at > REDRAW_SECONDS:
            self._draw()

    def end(self) -> None:
        """The whole summary, errors in full length."""
        if self.live:
            self._erase()
        click.echo("\n".join(table(self._rows(), width=0)))

    def _rows(self) -> list[tuple[str, Status, float | None, str]]:
        return [
            (job.name, self.status[job.name], self._elapsed(job), self.headlines.get(job.name, "")) for job in self.jobs
        ]

    def _elapsed(self, job: Job) -> float | None:
        status = self.status[job.name]
        return self.clock() - self.started[job.name] if status.state == "running" else status.seconds

    def _draw(self) -> None:
        self._erase()
        lines = table(self._rows(), self.width)
        click.echo("\n".join(lines))
        self.drawn_lines, self.drawn_at = len(lines), self.clock()

    def _erase(self) -> None:
        if self.drawn_lines:
            click.echo(f"\x1b[{self.drawn_lines}A\x1b[J", nl=False)  # up to the table's first line, clear from there
        self.drawn_lines = 0

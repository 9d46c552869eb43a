"""What a suite prints: a line per change of a job, then a table of all jobs."""

import click

from kdhelpers.display.text import MARK
from kdhelpers.report.labels import record_label
from kdhelpers.suite.profiles import Job
from kdhelpers.suite.schedule import FINISHED, Status, records_of

COLORS = dict(done="green", unchanged="green", running="cyan", failed="red", blocked="red", interrupted="yellow")


class Log:
    """Prints the changes of a suite: `changed` is the suite's callback, `end` prints the table."""

    def __init__(self, jobs: list[Job]):
        self.status = {job.name: Status() for job in jobs}
        self.headlines = dict.fromkeys(self.status, "")

    def changed(self, job: Job, status: Status) -> None:
        self.status[job.name], self.headlines[job.name] = status, headline(job, status)
        done = sum(other.state in FINISHED for other in self.status.values())
        parts = [status.state, duration(status.seconds), self.headlines[job.name]]
        click.echo(f"{job.name}: {'  '.join(filter(None, parts))}  ({done} of {len(self.status)} done)")

    def end(self) -> None:
        """The table: a line per job with its state, its time and its test accuracies or its error."""
        longest = max([3, *map(len, self.status)])
        click.secho(f"{'job':<{longest}}  {'state':<11}  {'time':>7}  test top-1", bold=True)
        for name, status in self.status.items():
            line = f"{name:<{longest}}  {status.state:<11}  {duration(status.seconds):>7}  {self.headlines[name]}"
            click.secho(line.rstrip(), fg=COLORS.get(status.state))


def headline(job: Job, status: Status) -> str:
    """The error, or the test accuracy of each run that the job's notebook recorded."""
    if status.error or status.state not in FINISHED:
        return status.error or ""
    return ", ".join(
        f"{record_label(record)} {record['metrics']['test_top1_pct']:.2f} %{MARK * bool(record.get('notes'))}"
        for record in records_of(job)
        if record["metrics"].get("test_top1_pct") is not None
    )


def duration(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"

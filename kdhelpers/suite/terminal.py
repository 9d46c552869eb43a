"""What a suite prints: what is missing and how long it takes, a line per change of a job, a table of all jobs."""

import shutil
from collections.abc import Mapping, Sequence

import click

from kdhelpers.artifacts import root
from kdhelpers.display.text import MARK
from kdhelpers.report.labels import record_label
from kdhelpers.suite.copies import records_of
from kdhelpers.suite.profiles import Job, fingerprints
from kdhelpers.suite.rehearsal import Estimate, plan
from kdhelpers.suite.schedule import ENDED, FINISHED, Status
from kdhelpers.suite.times import duration, limit_text

COLORS = dict(done="green", unchanged="green", running="cyan", failed="red", blocked="red", interrupted="yellow")


class Log:
    """Prints the changes of a suite: `changed` is the suite's callback, `end` prints the table.

    estimates: of a rehearsal; with them each line has the time that is left.
    """

    def __init__(self, jobs: Sequence[Job], estimates: Mapping[str, Estimate] = {}, workers: int = 1):
        self.jobs, self.estimates, self.workers = jobs, estimates, workers
        self.status = {job.name: Status() for job in jobs}
        self.headlines = dict.fromkeys(self.status, "")

    def changed(self, job: Job, status: Status) -> None:
        self.status[job.name], self.headlines[job.name] = status, headline(job, status)
        done = sum(other.state in FINISHED for other in self.status.values())
        parts = [status.state, duration(status.seconds), self.headlines[job.name]]
        left = self._left()
        click.echo(f"{job.name}: {'  '.join(filter(None, parts))}  ({done} of {len(self.status)} done{left})")

    def _left(self) -> str:
        ahead = [job for job in self.jobs if self.status[job.name].state not in ENDED]
        if not ahead or any(job.entry not in self.estimates for job in ahead):
            return ""
        return f", about {duration(plan(ahead, self.estimates, self.workers).seconds)} left"

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
        if record["metrics"].get("test_top1_pct") is not None and "rehearsal" not in record
    )


def plan_text(jobs: Sequence[Job], estimates: Mapping[str, Estimate], workers: int) -> str:
    """What the jobs take on this machine, and the free disk."""
    whole, free = plan(jobs, estimates, workers), shutil.disk_usage(root()).free
    if whole.unknown:
        return f"{whole.unknown} of {len(jobs)} jobs have no estimate of their time; --rehearse makes it"
    failed = sum(estimates[name].state != "done" for name in {job.entry for job in jobs})
    without = f"; {failed} jobs that did not work are not in it" * bool(failed)
    disk = f"{whole.bytes / 1e9:.1f} GB on the disk ({free / 1e9:.0f} GB are free)"
    return (
        f"estimate of the last rehearsal: {whole.trainings} trainings, {duration(whole.seconds)} by {workers} workers, "
        f"{whole.memory_mib / 1024:.1f} GiB of memory for the largest one, {disk}{without}"
    )


def over_their_limit(jobs: Sequence[Job], estimates: Mapping[str, Estimate]) -> list[str]:
    """A line for each job whose estimated time is more than its time limit."""
    known = [(job, estimates[job.entry].seconds * job.seeds) for job in jobs if job.entry in estimates]
    return [
        f"job {job.name}: takes about {duration(seconds)}, and its time limit is {limit_text(job.time_limit)}; raise it"
        for job, seconds in known
        if job.time_limit and seconds > job.time_limit
    ]


def changed_since(estimates: Mapping[str, Estimate], rehearsed: Sequence[Job], entries: set[str]) -> list[str]:
    """A line if some of the entries are not those that were rehearsed. `rehearsed`: the whole profile, one seed."""
    hashes = fingerprints([*rehearsed])
    now = {job.entry: hashes[job.name] for job in rehearsed}
    known = entries & estimates.keys()
    changed = sum(estimates[entry].fingerprint != now.get(entry) for entry in known)
    found = f"{changed} of {len(known)} jobs have other sources, parameters or seeds than when they were rehearsed"
    return [f"{found}; --rehearse measures them again"] * bool(changed)


def print_estimates(estimates: Mapping[str, Estimate]) -> None:
    """A line per entry of the profile: does it work, and what one seed of it takes; the errors in full."""
    longest = max([3, *map(len, estimates)])
    click.secho(f"{'job':<{longest}}  {'works':<7}  {'trainings':>9}  {'time':>7}  {'memory':>9}", bold=True)
    for name, one in estimates.items():
        memory = f"{one.memory_mib:,.0f} MiB" if one.memory_mib else ""
        works = {"done": "yes", "blocked": "blocked"}.get(one.state, "no")
        facts = f"{works:<7}  {one.trainings or '':>9}  {duration(one.seconds):>7}  {memory:>9}"
        click.secho(f"{name:<{longest}}  {facts}".rstrip(), fg=None if works == "yes" else "red")
        if works == "no":
            click.echo(f"{'':<{longest}}  {one.error}")

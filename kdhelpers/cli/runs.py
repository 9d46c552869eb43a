"""Commands that train: `suite` and `train`."""

import sys

import click

from kdhelpers.cli import examples
from kdhelpers.cli.group import SuiteCommand, TrainCommand, with_network


@click.command(cls=SuiteCommand, epilog=examples.SUITE_EXAMPLES)
@with_network
@click.option(
    "--profile", default="smoke", show_default=True, metavar="NAME|PATH", help="A name from below, or a YAML file."
)
@click.option(
    "--only", multiple=True, metavar="NAME ...", help="Run these jobs (or '07_crd_*') and the jobs they need."
)
@click.option(
    "--seeds",
    multiple=True,
    type=click.IntRange(min=0),
    default=[0],
    metavar="N ...",
    help="Run every job marked `seeds: each` once per seed (default: 0).",
)
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Jobs at a time (default: by GPUs, cores and memory)."
)
@click.option("--ray", metavar="ADDRESS", help="Run the jobs as Ray tasks: local, auto, or the address of a cluster.")
@click.option("--time-limit", metavar="TIME", help="End a job that takes longer, such as 90s, 45min, 2h or 1d.")
@click.option("--force", is_flag=True, help="Run and train again even if nothing changed: the --only jobs, or all.")
@click.option("--rehearse", is_flag=True, help="Run each job for a few steps; print what works and an estimate.")
def suite(ray: str | None, force: bool, rehearse: bool, **options) -> None:
    """Replay a profile's notebooks, then write the report.

    Jobs run in dependency order; executed copies and logs go to notebooks/executed/. A finished job is kept if its
    notebook, parameters and code are unchanged, so the same command continues an interrupted suite. A job that fails,
    dies or takes longer than its time limit blocks the jobs that need it, and no others. The exit code is then 1.
    """
    if rehearse and (ray or force):
        raise click.UsageError("--rehearse: runs on this machine and trains nothing; leave out --ray and --force")
    from kdhelpers.suite import rehearse_suite, run_suite
    from kdhelpers.suite.report import convert_notebooks, write_report

    try:
        if rehearse:
            sys.exit(0 if rehearse_suite(**options) else 1)
        finished = run_suite(**options, ray=ray, force=force)
    except KeyboardInterrupt:
        click.echo("interrupted; finished jobs are kept, and the same command continues", err=True)
        sys.exit(130)
    convert_notebooks()
    click.echo(f"report: {write_report()}")
    sys.exit(0 if finished else 1)


@click.command(cls=TrainCommand, epilog=examples.TRAIN_EXAMPLES)
@with_network
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE|RUN.json...")
@click.option("--force", is_flag=True, help="Train again even if the run is finished.")
@click.option("--cache-teacher", is_flag=True, help="Keep the teacher's outputs on the disk; reuse them (crop, flip).")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps (default: a GPU if there is one).")
@click.option("--no-graphs", is_flag=True, help="Run the steps without CUDA graphs.")
@click.option("--dry-run", is_flag=True, help="Print the completed run as JSON; train nothing.")
def train(settings: tuple, dry_run: bool, force: bool, no_graphs: bool, **options: bool | str | None) -> None:
    """Train one run.

    NAME is a field of a Run (dataset, model, method, teacher, epochs, lr, seed, ...), or an option of its method,
    network, optimiser or schedule. A JSON file holds the fields of a Run; a record in json_results/ is such a file too.
    A finished run is loaded. An interrupted run continues from its last finished epoch. A killed one continues from its
    last checkpoint; one is written every 20 seconds.
    """
    from kdhelpers.training import command

    run = command.run_from(settings)
    if dry_run:
        click.echo(run.model_dump_json(indent=1))
        return
    try:
        trained = command.train(run, force_retrain=force, graphs=False if no_graphs else None, **options)
    except KeyboardInterrupt:
        sys.exit(130)  # the progress has printed how it goes on
    if trained:
        click.echo(command.ending(trained))

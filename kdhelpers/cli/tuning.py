"""`python -m kdhelpers tune`."""

import sys

import click

from kdhelpers.cli import examples
from kdhelpers.cli.group import with_network


@click.command(epilog=examples.TUNE_EXAMPLES)
@with_network
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option("--methods", required=True, metavar="TEXT", help='Methods to compare, such as "si; lm; dkd published".')
@click.option("--trials", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="Per method.")
@click.option("--space", metavar="FILE", help="YAML file of what is searched, in place of the defaults.")
@click.option("--name", metavar="NAME", help="Name of the study (default: <student>_<data set>).")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Trials at a time (default: 1).")
@click.option("--ray", metavar="ADDRESS", help="Run the workers as Ray tasks: local, auto, or a cluster's address.")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps (default: a GPU if there is one).")
def tune(settings: tuple, methods: str, trials: int, **options) -> None:
    """Search hyperparameters, fairly for all methods.

    NAME is a field of a Run (dataset, model, teacher, epochs, lr, seed, ...); `seed` also seeds the search. Every
    method gets the same number of trials of the same budget. Trial 0 is the given setting: the defaults, or
    `published` values. A trial is judged on held-out training images; the test images are not used.

    Each trial is a record in json_results/trials/, so the same command continues an interrupted study. The command
    writes a table, a picture and a profile, which trains and tests the best setting of each method over seeds.
    """
    from kdhelpers.tuning import tune as run_study
    from kdhelpers.tuning.report import report

    try:
        study, held_out = run_study(_values(settings), methods, trials, **options)
    except KeyboardInterrupt:
        click.echo("interrupted; trials that have ended are kept, and the same command continues", err=True)
        sys.exit(130)
    click.echo(report(study, held_out))


def _values(settings: tuple[str, ...]) -> dict[str, str]:
    pairs = [word.partition("=") for word in settings]
    if bad := [name for name, sign, value in pairs if not (name and sign and value)]:
        raise ValueError(f"tune = {bad[0]}: is not NAME=VALUE; write for instance model=resnet8")
    names = [name for name, _, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]}: given twice; keep one")
    if "method" in names:
        raise ValueError("method: is one of several here; give them as --methods")
    return {name: value for name, _, value in pairs}

"""The command line: python -m kdhelpers suite | list | report | compare | data | predict | teachers.

Heavy imports wait for the command that needs them.
"""

import os
import sys
from pathlib import Path
from typing import Any

import click

from kdhelpers import __version__


class Commands(click.Group):
    """Faults in the input or the machine end as `error: ...` with exit code 1; KD_TRACEBACK=1 shows the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, FloatingPointError) as error:
            if os.environ.get("KD_TRACEBACK") or isinstance(error, BrokenPipeError):
                raise
            click.echo(f"error: {' '.join(str(error).split())}", err=True)
            sys.exit(1)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The optimisers, where to begin with each, and Lion's rule, as `optim` has them."""
        from kdhelpers.training.optim import LION_RULE, described

        with formatter.section("Optimisers of a run"):
            formatter.write_dl(described())
            formatter.write_text(LION_RULE)


class SpacedOptions(click.Command):
    """A repeatable option takes several values at once: `--seeds 0 1 2` means `--seeds 0 --seeds 1 --seeds 2`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        repeatable = {flag for option in self.params if getattr(option, "multiple", False) for flag in option.opts}
        option, repeated = "", []
        for argument in args:
            if argument.startswith("-"):
                option = argument
            elif option in repeatable and repeated[-1] != option:
                repeated.append(option)
            repeated.append(argument)
        return super().parse_args(ctx, repeated)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name=None, version=__version__, prog_name="kdhelpers")
def main() -> None:
    """Knowledge distillation: replay the notebooks, look at what they left behind.

    Artifacts go to the checkout (or KD_ROOT), data sets are looked for in its data/ folder (or KD_DATA).
    """


@main.command(cls=SpacedOptions)
@click.option(
    "--profile",
    default="smoke",
    show_default=True,
    metavar="NAME|PATH",
    help="A name that `list` shows (smoke, laptop, short, paper), or a YAML file of your own.",
)
@click.option(
    "--only", multiple=True, metavar="NAME ...", help="These jobs, patterns too ('07_crd_*'), and what they need."
)
@click.option(
    "--seeds",
    multiple=True,
    type=click.IntRange(min=0),
    default=[0],
    metavar="N ...",
    help="Repeat the jobs marked `seeds: each` with each of these seeds (default: 0).",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Jobs at a time (default: one per GPU; without one, what cores and memory carry).",
)
@click.option("--ray", metavar="ADDRESS", help="Run the jobs as Ray tasks: local, auto, or a cluster's address.")
@click.option("--force", is_flag=True, help="Run and train again even where nothing changed (the --only jobs, or all).")
def suite(profile: str, only: tuple, seeds: tuple, workers: int | None, ray: str | None, force: bool) -> None:
    """Replay a profile's notebooks in dependency order, then write the report.

    Executed copies and logs go to notebooks/executed/. A finished job whose notebook, parameters and code are the same
    is kept, so the same command continues an interrupted suite. Exit code 1 where a job failed.
    """
    from kdhelpers.report.gallery import write_gallery
    from kdhelpers.suite import run_suite

    try:
        finished = run_suite(profile, only, seeds, workers, ray, force)
    except KeyboardInterrupt:
        click.echo("interrupted; finished jobs are kept, the same command continues", err=True)
        sys.exit(130)
    click.echo(f"report: {write_gallery()}")
    sys.exit(0 if finished else 1)


@main.command("list")
def list_() -> None:
    """Notebooks and their parameters, profiles, what a run can name (data, models, methods, ...), stored runs."""
    from kdhelpers.cli.output import listing

    click.echo(listing())


@main.command()
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
def report(show: bool) -> None:
    """Write plots/index.html, one static page over every stored run."""
    from kdhelpers.report.gallery import write_gallery

    page = write_gallery()
    click.echo(page)
    if show:
        click.launch(page.as_uri())


@main.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
def compare(first: str, second: str) -> None:
    """Two stored runs by name: settings that differ, metrics side by side, and A - B on the same test images."""
    from kdhelpers.cli.output import comparison

    click.echo(comparison(first, second))


@main.command()
@click.argument("name")
@click.option("--image-size", type=click.IntRange(8, 1024), metavar="N", help="Side in pixels (default: its own).")
def data(name: str, image_size: int | None) -> None:
    """Load a data set, downloading it where it is missing, and print its data card."""
    from kdhelpers.cli.output import data_card
    from kdhelpers.data import load_data

    click.echo(data_card(load_data(name, image_size=image_size)))


@main.command()
@click.option(
    "--model", required=True, metavar="NAME|PATH", help="Stored weights: a name that `list` shows, or a .pth."
)
@click.option("--data", "source", required=True, metavar="PATH", help="A pickle {data, ids}, or a folder of images.")
@click.option(
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="The CSV: ID,Labels; replaces only another such.",
)
@click.option("--tta", is_flag=True, help="Mean probabilities of each image and its mirror image.")
@click.option("--dataset", metavar="NAME", help="Trained on; needed for weights without a description beside them.")
def predict(model: str, source: str, output: str, tta: bool, dataset: str | None) -> None:
    """Label images that have no labels, and write the labels as a CSV file in the images' order.

    The file is checked before it replaces an older one. How often each class was predicted, and how surely, is printed
    and plotted.
    """
    from kdhelpers.cli.output import predictions
    from kdhelpers.evaluation.submission import check_output, predict_stored, write_submission

    check_output(output)
    answers = predict_stored(model, source, tta, dataset)
    path = write_submission(output, answers)
    click.echo(predictions(answers, path, model))


@main.command()
@click.argument("models", nargs=-1, metavar="[ARCHITECTURE]...")
@click.option("--list", "show", is_flag=True, help="Print the table, as without arguments.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Weights of your own.")
@click.option("--model", metavar="ARCHITECTURE", help="Architecture of the weights in --file.")
@click.option("--dataset", metavar="NAME", help="Data set that the weights in --file know.")
def teachers(models: tuple, show: bool, file: Path | None, model: str | None, dataset: str | None) -> None:
    """Published CIFAR-100 teachers: a table of them, or fetch the named ones; or register weights made elsewhere.

    What comes is checked, measured on the test images and stored as teacher_<architecture>_<data set>: afterwards
    `teacher = resnet56` means it in every notebook. An interrupted download goes on. Weights of your own must have been
    trained with our normalisation (`python -m kdhelpers data NAME` prints it).
    """
    if (file is None) != (model is None) or (file is None) != (dataset is None):
        raise click.UsageError("--file, --model and --dataset belong together; give all three")
    if models and file:
        raise click.UsageError("--file registers weights of your own; leave the published architectures out")
    from kdhelpers.cli.output import columns
    from kdhelpers.zoo import fetch as zoo

    if show or not (models or file):
        click.echo(columns(zoo.table(), indent=""))
        return
    zoo.check_known(models)
    for published in models:
        click.echo(zoo.report(zoo.fetch(published)))
    if file:
        click.echo(zoo.report(zoo.register_file(file, model, dataset)))

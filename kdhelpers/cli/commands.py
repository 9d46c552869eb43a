"""The command line: python -m kdhelpers suite | list | report | compare | data | predict | teachers.

A command imports heavy modules when it runs, so that `--help` is fast.
"""

import os
import sys
from pathlib import Path
from typing import Any

import click

from kdhelpers import __version__


class Commands(click.Group):
    """A fault of the input or the machine ends as `error: ...` with exit code 1; KD_TRACEBACK=1 shows the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, FloatingPointError) as error:
            if os.environ.get("KD_TRACEBACK") or isinstance(error, BrokenPipeError):
                raise
            click.echo(f"error: {' '.join(str(error).split())}", err=True)
            sys.exit(1)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The optimisers, their first learning rate and weight decay, and Lion's rule, from `optim`."""
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
    """Knowledge distillation: replay the notebooks and inspect their results.

    Artifacts go to the checkout (or KD_ROOT). Data sets lie in its data/ folder (or KD_DATA).
    """


@main.command(cls=SpacedOptions)
@click.option(
    "--profile", default="smoke", show_default=True, metavar="NAME|PATH", help="A name from `list`, or a YAML file."
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
@click.option("--force", is_flag=True, help="Run and train again even if nothing changed: the --only jobs, or all.")
def suite(profile: str, only: tuple, seeds: tuple, workers: int | None, ray: str | None, force: bool) -> None:
    """Replay a profile's notebooks, then write the report.

    Jobs run in dependency order; executed copies and logs go to notebooks/executed/. A finished job is kept if its
    notebook, parameters and code are unchanged, so the same command continues an interrupted suite. The exit code is 1
    if a job failed.
    """
    from kdhelpers.report.gallery import write_gallery
    from kdhelpers.suite import run_suite

    try:
        finished = run_suite(profile, only, seeds, workers, ray, force)
    except KeyboardInterrupt:
        click.echo("interrupted; finished jobs are kept, and the same command continues", err=True)
        sys.exit(130)
    click.echo(f"report: {write_gallery()}")
    sys.exit(0 if finished else 1)


@main.command("list")
def list_() -> None:
    """List notebooks, profiles, data sets, models and runs.

    Also methods, optimisers, and the parameters of every notebook.
    """
    from kdhelpers.cli.output import listing

    click.echo(listing())


@main.command()
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
def report(show: bool) -> None:
    """Write plots/index.html, a page over all stored runs."""
    from kdhelpers.report.gallery import write_gallery

    page = write_gallery()
    click.echo(page)
    if show:
        click.launch(page.as_uri())


@main.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
def compare(first: str, second: str) -> None:
    """Compare two stored runs, A and B, by name.

    Prints the settings that differ, the metrics side by side, and the accuracy of A minus B on the same test images.
    """
    from kdhelpers.cli.output import comparison

    click.echo(comparison(first, second))


@main.command()
@click.argument("name")
@click.option(
    "--image-size", type=click.IntRange(8, 1024), metavar="N", help="Side in pixels (default: the data set's own)."
)
def data(name: str, image_size: int | None) -> None:
    """Load a data set and print its data card.

    A missing data set is downloaded.
    """
    from kdhelpers.cli.output import data_card
    from kdhelpers.data import load_data

    click.echo(data_card(load_data(name, image_size=image_size)))


@main.command()
@click.option("--model", required=True, metavar="NAME|PATH", help="Stored weights: a name from `list`, or a .pth file.")
@click.option("--data", "source", required=True, metavar="PATH", help="A pickle {data, ids}, or a folder of images.")
@click.option(
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="The CSV file, ID,Labels; it replaces only a file of this format.",
)
@click.option("--tta", is_flag=True, help="Average the probabilities of every image and its mirror image.")
@click.option("--dataset", metavar="NAME", help="Training data of the weights; needed without a description (.json).")
def predict(model: str, source: str, output: str, tta: bool, dataset: str | None) -> None:
    """Predict labels of images; write them as a CSV file.

    The rows have the images' order. The file is checked before it replaces an older one. The command prints and plots
    the count and the mean confidence of every predicted class.
    """
    from kdhelpers.cli.output import predictions
    from kdhelpers.evaluation.submission import check_output, predict_stored, write_submission

    check_output(output)
    labels = predict_stored(model, source, tta, dataset)
    path = write_submission(output, labels)
    click.echo(predictions(labels, path, model))


@main.command()
@click.argument("models", nargs=-1, metavar="[ARCHITECTURE]...")
@click.option("--list", "show", is_flag=True, help="Print the table, as the command without arguments does.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A weight file to register.")
@click.option("--model", metavar="ARCHITECTURE", help="Architecture of the weights in --file.")
@click.option("--dataset", metavar="NAME", help="Training data of the weights in --file.")
def teachers(models: tuple, show: bool, file: Path | None, model: str | None, dataset: str | None) -> None:
    """List or fetch published teachers; register weights.

    Without arguments: a table of published CIFAR-100 teachers. With architectures: fetch their weights; an interrupted
    download continues. With --file, --model and --dataset: register a weight file, whose training must have used this
    package's normalisation (`python -m kdhelpers data NAME` prints it).

    The weights are checked, evaluated on the test images and stored as teacher_<architecture>_<data set>. Then
    `teacher = resnet56` names them in every notebook.
    """
    if (file is None) != (model is None) or (file is None) != (dataset is None):
        raise click.UsageError("--file, --model and --dataset belong together; give all three")
    if models and file:
        raise click.UsageError("--file registers a weight file; remove the published architectures")
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

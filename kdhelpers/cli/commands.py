"""The command line: python -m kdhelpers COMMAND; `--help` lists the commands.

A command imports heavy modules when it runs, so that `--help` is fast.
"""

import sys
from pathlib import Path

import click

from kdhelpers import __version__
from kdhelpers.cli import examples
from kdhelpers.cli.group import Commands, SpacedOptions, SuiteCommand, TrainCommand, with_network
from kdhelpers.cli.tuning import tune


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples.GROUP_EXAMPLES,
)
@click.version_option(package_name=None, version=__version__, prog_name="kdhelpers")
def main() -> None:
    """Knowledge distillation: replay the notebooks, train runs, inspect results.

    Artifacts go to the checkout (or KD_ROOT). Data sets lie in its data/ folder (or KD_DATA).
    """


@main.command(cls=SuiteCommand, epilog=examples.SUITE_EXAMPLES)
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
@click.option("--force", is_flag=True, help="Run and train again even if nothing changed: the --only jobs, or all.")
@click.option("--rehearse", is_flag=True, help="Run each job for a few steps; print what works and an estimate.")
def suite(
    profile: str, only: tuple, seeds: tuple, workers: int | None, ray: str | None, force: bool, rehearse: bool
) -> None:
    """Replay a profile's notebooks, then write the report.

    Jobs run in dependency order; executed copies and logs go to notebooks/executed/. A finished job is kept if its
    notebook, parameters and code are unchanged, so the same command continues an interrupted suite. The exit code is 1
    if a job failed.
    """
    from kdhelpers.suite import rehearse_suite, run_suite
    from kdhelpers.suite.report import convert_notebooks, write_report

    if rehearse:
        sys.exit(0 if rehearse_suite(profile, only, seeds, workers) else 1)
    try:
        finished = run_suite(profile, only, seeds, workers, ray, force)
    except KeyboardInterrupt:
        click.echo("interrupted; finished jobs are kept, and the same command continues", err=True)
        sys.exit(130)
    convert_notebooks()
    click.echo(f"report: {write_report()}")
    sys.exit(0 if finished else 1)


@main.command(cls=TrainCommand, epilog=examples.TRAIN_EXAMPLES)
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


main.add_command(tune)


@main.command("list", epilog=examples.LIST_EXAMPLES)
@click.argument("section", required=False)
@click.argument("text", required=False, metavar="[FILTER]")
def list_(section: str | None, text: str | None) -> None:
    """List names: notebooks, profiles, data sets, runs, ...

    Without SECTION: the names of each section. SECTION is one of notebooks, profiles, data, models, methods,
    settings, optimisers, runs. FILTER keeps the rows that contain this text; a row that is alone is shown in full.
    """
    from kdhelpers.cli.listing import listing, overview

    click.echo(listing(section, text or "") if section else overview())


@main.command()
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
def report(show: bool) -> None:
    """Write plots/index.html, pages over all stored runs.

    It also writes README.md in plots/ and json_results/, for readers on the web.
    """
    from kdhelpers.suite.report import write_report

    page = write_report()
    click.echo(page)
    if show:
        click.launch(page.as_uri())


@main.command(epilog=examples.EXPLORE_EXAMPLES)
@with_network
@click.argument("names", nargs=-1, metavar="[NETWORK]...")
@click.option("--dataset", metavar="NAME", help="Take the newest student of this data set.")
@click.option(
    "--images", type=click.IntRange(1, 2000), default=500, show_default=True, metavar="N", help="Test images."
)
@click.option("--name", "page", metavar="PAGE", help="Write plots/PAGE.html (default: explore_<student>_<data set>).")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
def explore(names: tuple, dataset: str | None, images: int, page: str | None, show: bool) -> None:
    """Write a page to explore predictions, image by image.

    NETWORK is the name of a stored student, or of the teacher. Without a teacher, it is that of the first student.
    Without names, the newest student is taken, with the other students of its budget and seed.

    The page shows the class probabilities of the teacher and the students for test images, drawn at random. A slider
    changes the temperature; the page computes the KL divergence from the teacher. It needs no network.
    """
    from kdhelpers.report.explorer import write_explorer

    path = write_explorer(names, dataset, images, page)
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    if show:
        click.launch(path.as_uri())


@main.command(epilog=examples.COMPARE_EXAMPLE)
@with_network
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
@click.option("--check", is_flag=True, help="List all findings on its files; exit code 1 if one of them is serious.")
def data(name: str, image_size: int | None, check: bool) -> None:
    """Load a data set and print its data card.

    A missing data set is downloaded. With --check, all findings on its files are listed instead, in one reading: a
    serious one stops `load_data`, a warning may spoil the result, a note is only said.
    """
    from kdhelpers.cli.output import data_card, findings
    from kdhelpers.data import check_data, load_data

    if check:
        found = check_data(name, image_size)
        click.echo(findings(found))
        sys.exit(1 if found.serious else 0)
    click.echo(data_card(load_data(name, image_size=image_size)))


@main.command(epilog=examples.NETWORK_EXAMPLES)
@click.argument("name")
@click.argument("options", nargs=-1, metavar="[OPTION=VALUE]...")
@click.option("--image-size", type=click.IntRange(8, 1024), default=32, show_default=True, metavar="N", help="Pixels.")
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True, metavar="N", help="Classes.")
def network(name: str, options: tuple, image_size: int, classes: int) -> None:
    """Print the nodes of a network, or a library's networks.

    NAME is an architecture: of `list models`, torchvision:NAME, timm:NAME, my_models:TinyNet or
    path/to/file.py:TinyNet. The table has the feature maps and the embedding that are taken, and the nodes that
    model_options can name. `torchvision`, `timm` and `timm:TEXT*` list names.
    """
    from kdhelpers.cli.networks import described

    click.echo(described(name, image_size, classes, options))


@main.command(cls=SpacedOptions, epilog=examples.PREDICT_EXAMPLES)
@with_network
@click.option("--model", required=True, metavar="NAME|PATH", help="Stored weights: a name from `list`, or a .pth file.")
@click.option(
    "--data",
    "sources",
    required=True,
    multiple=True,
    metavar="PATH ...",
    help="Image files, a folder of images, or a pickle {data, ids}.",
)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write a CSV file, ID,Labels; it replaces only a file of this format.",
)
@click.option("--names", is_flag=True, help="Add the columns Class and Confidence to the CSV file.")
@click.option("--tta", is_flag=True, help="Average the probabilities of every image and its mirror image.")
@click.option("--dataset", metavar="NAME", help="Training data of the weights; needed without a description (.json).")
def predict(model: str, sources: tuple, output: str | None, names: bool, tta: bool, dataset: str | None) -> None:
    """Predict the classes of images.

    Without --output the command prints the class and the confidence of every image. With --output it writes a row per
    image in the images' order, and prints and plots the count and the mean confidence of every predicted class. The
    file is checked before it replaces an older one. Images of another size are resized, as in a data set.
    """
    from kdhelpers.cli.output import image_classes, predictions
    from kdhelpers.evaluation.submission import check_output, predict_stored, write_submission

    if names and output is None:
        raise click.UsageError("--names belongs to --output; without a file the names are printed")
    if output is not None:
        check_output(output)
    labels = predict_stored(model, sources, tta, dataset)
    if labels.note:
        click.echo(labels.note)
    if output is not None:
        click.echo(predictions(labels, write_submission(output, labels, names), model))
    else:
        click.echo(image_classes(labels))


@main.command(epilog=examples.TEACHERS_EXAMPLES)
@click.argument("models", nargs=-1, metavar="[ARCHITECTURE]...")
@click.option("--list", "show", is_flag=True, help="Print the table, as the command without arguments does.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A weight file to register.")
@click.option("--model", metavar="ARCHITECTURE", help="Architecture of the weights in --file.")
@click.option("--dataset", metavar="NAME", help="Training data of the weights in --file.")
@click.option("--force", is_flag=True, help="Register the weights in --file even if they are near chance.")
def teachers(models: tuple, show: bool, file: Path | None, model: str | None, dataset: str | None, force: bool) -> None:
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
        click.echo(zoo.report(zoo.register_file(file, model, dataset, force)))

"""Commands over data sets, networks and weights: `data`, `network`, `predict` and `teachers`."""

import sys
from pathlib import Path

import click

from kdhelpers.cli import examples
from kdhelpers.cli.group import SpacedOptions, with_network


@click.command()
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


@click.command(epilog=examples.NETWORK_EXAMPLES)
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


@click.command(cls=SpacedOptions, epilog=examples.PREDICT_EXAMPLES)
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


@click.command(epilog=examples.TEACHERS_EXAMPLES)
@click.argument("models", nargs=-1, metavar="[ARCHITECTURE]...")
@click.option("--list", "show", is_flag=True, help="Print the table, as the command without arguments does.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A weight file to register.")
@click.option("--model", metavar="ARCHITECTURE", help="Architecture of the weights in --file.")
@click.option(
    "--model-options", default="", metavar="TEXT", help='Options of this architecture: "patch_size:4 depth:4".'
)
@click.option("--dataset", metavar="NAME", help="Training data of the weights in --file.")
@click.option("--force", is_flag=True, help="Register the weights in --file even if they are near chance.")
def teachers(
    models: tuple,
    show: bool,
    file: Path | None,
    model: str | None,
    model_options: str,
    dataset: str | None,
    force: bool,
) -> None:
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
        click.echo(zoo.report(zoo.register_file(file, model, dataset, force, model_options)))

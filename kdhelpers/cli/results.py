"""Commands over stored runs: `list`, `report`, `explore` and `compare`."""

import click

from kdhelpers.cli import examples
from kdhelpers.cli.group import with_network


@click.command("list", epilog=examples.LIST_EXAMPLES)
@click.argument("section", required=False)
@click.argument("text", required=False, metavar="[FILTER]")
def list_(section: str | None, text: str | None) -> None:
    """List names: notebooks, profiles, data sets, runs, ...

    Without SECTION: the names of each section. SECTION is one of notebooks, profiles, data, models, methods,
    settings, optimisers, runs. FILTER keeps the rows that contain this text; a row that is alone is shown in full.
    """
    from kdhelpers.cli.listing import listing, overview

    click.echo(listing(section, text or "") if section else overview())


@click.command()
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


@click.command(epilog=examples.EXPLORE_EXAMPLES)
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


@click.command(epilog=examples.COMPARE_EXAMPLE)
@with_network
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
def compare(first: str, second: str) -> None:
    """Compare two stored runs, A and B, by name.

    Prints the settings that differ, the metrics side by side, and the accuracy of A minus B on the same test images.
    """
    from kdhelpers.cli.output import comparison

    click.echo(comparison(first, second))

"""The command line: python -m kdhelpers COMMAND; `--help` lists the commands.

Each command is in a file of its theme. It imports heavy modules when it runs, so that `--help` is fast.
"""

import click

from kdhelpers import __version__
from kdhelpers.cli import examples
from kdhelpers.cli.export import export
from kdhelpers.cli.group import Commands
from kdhelpers.cli.inputs import data, network, predict, teachers
from kdhelpers.cli.results import compare, explore, list_, report
from kdhelpers.cli.runs import suite, train
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


for command in (suite, train, list_, report, explore, compare, data, export, network, predict, teachers, tune):
    main.add_command(command)

"""`python -m kdhelpers`: see `kdhelpers.cli.commands`."""

from kdhelpers.cli.commands import main

main(prog_name="python -m kdhelpers")

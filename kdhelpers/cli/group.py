"""How the command line parses: one-line errors, the nearest command for a wrong one, several values per option."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from kdhelpers.messages import FAULTS, one_line
from kdhelpers.nearest import check_known
from kdhelpers.python_paths import use_network


def with_network(command: Callable) -> Callable:
    """The option --network: Python paths of networks of the user's own, which stored weights or records name."""

    def use(_context: click.Context, _option: click.Parameter, paths: tuple[str, ...]) -> None:
        for path in paths:
            use_network(path)

    text = "Import this network of your own, MODULE:NAME or FILE.py:NAME, which a stored file names."
    options = {"multiple": True, "callback": use, "expose_value": False, "metavar": "PATH", "help": text}
    return click.option("--network", **options)(command)


class Commands(click.Group):
    """A fault of the input or the machine ends as `error: ...` with exit code 1; KD_TRACEBACK=1 shows the traceback.

    A wrong option or argument ends in the same way with exit code 2.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            of_group = " ".join(filter(None, [ctx.command_path, ctx.invoked_subcommand]))
            command = error.ctx.command_path if error.ctx else of_group
            click.echo(f"error: {error.format_message().rstrip('.')}. See `{command} --help`", err=True)
            sys.exit(2)
        except FAULTS as error:
            if os.environ.get("KD_TRACEBACK") or isinstance(error, BrokenPipeError):
                raise
            click.echo(f"error: {one_line(error)}", err=True)
            sys.exit(1)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        check_known("command", args[0], self.commands)
        if "" in args and args[0] != "list":
            raise ValueError(f"{args[args.index('') - 1].lstrip('-')}: is empty; give a value")
        return super().resolve_command(ctx, args)


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


class SuiteCommand(SpacedOptions):
    """Its help ends with the profiles."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from kdhelpers.suite.profiles import profile_names, summary_of

        super().format_epilog(ctx, formatter)
        if names := profile_names():
            with formatter.section("Profiles"):
                formatter.write_dl([(name, summary_of(name)) for name in names])


class TrainCommand(click.Command):
    """Its help ends with the optimisers, their first learning rate and weight decay, and Lion's rule."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from kdhelpers.training.optim import LION_RULE, described

        super().format_epilog(ctx, formatter)
        with formatter.section("Optimisers"):
            formatter.write_dl(described())
            formatter.write_text(LION_RULE)

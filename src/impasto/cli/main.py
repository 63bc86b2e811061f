"""The command line: the commands, their exit codes, and their error messages.

No module in this folder loads torch at import: `impasto --help` is instant.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from impasto import __version__
from impasto.cli.adapt import adapt
from impasto.cli.attack import attack
from impasto.cli.batch import batch
from impasto.cli.bench import bench, doctor
from impasto.cli.dream import dream
from impasto.cli.evaluate import evaluate
from impasto.cli.export import export
from impasto.cli.export_style import export_style
from impasto.cli.inspect import inspect
from impasto.cli.invert import invert
from impasto.cli.live import live
from impasto.cli.methods import methods
from impasto.cli.serve import serve
from impasto.cli.style import extract, show, styles
from impasto.cli.stylize import stylize
from impasto.cli.sweep import sweep
from impasto.cli.texture import texture
from impasto.cli.train import train
from impasto.cli.transfer import fit, predict
from impasto.cli.video import video
from impasto.cli.web import web
from impasto.commands.arguments import PLAIN
from impasto.commands.terminal import log_to_stderr, say
from impasto.errors import ImpastoError, is_out_of_memory, one_line
from impasto.ops.machine import KERNELS, set_threads

PLAINER = (
    (r"Input should be a valid integer.*", "a whole number is needed"),
    (r"Input should be a valid number.*", "a number is needed"),
    (r"Input should be greater than or equal to (\S+)", r"it must be at least \1"),
    (r"Input should be less than or equal to (\S+)", r"it must be at most \1"),
)
DONE, BROKEN, MISTAKE, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141
USAGE_ERRORS = cast("tuple[type[Exception], ...]", typer.BadParameter.__bases__)


def _without_types(parameters: list[Any]) -> list[Any]:
    """Let the help show no type for flags that take no value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = " "
    return parameters


class Command(TyperCommand):
    """A command whose help shows no type for flags that take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters, --help among them."""
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands, whose help shows no type for flags that take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters, --help among them."""
        return _without_types(super().get_params(ctx))


class OpenCommand(Command):
    """A command that leaves undeclared flags to `take_flags` and reports Ctrl-C."""

    allow_extra_args = True
    ignore_unknown_options = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the declared flags, and remember the words after `--`."""
        if "--" in args:
            ctx.meta[PLAIN] = len(args) - args.index("--") - 1
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C that it does not handle itself ends it with exit code 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("interrupted: nothing was written", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="impasto",
    cls=Group,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
style = typer.Typer(cls=Group)
transfer = typer.Typer(cls=Group)
app.command(cls=OpenCommand)(stylize)
app.command(cls=OpenCommand)(batch)
app.command(cls=OpenCommand)(video)
app.command(cls=OpenCommand)(live)
app.command(cls=OpenCommand)(serve)
app.command(cls=Command)(web)
app.command(cls=Command)(methods)
app.command(cls=Command)(styles)
app.add_typer(style, name="style")
style.command(cls=OpenCommand)(extract)
style.command(cls=Command)(show)
app.command(cls=OpenCommand)(sweep)
app.command(cls=OpenCommand)(evaluate)
app.command(cls=OpenCommand)(train)
app.command(cls=OpenCommand)(adapt)
app.command(cls=OpenCommand)(export)
app.command("export-style", cls=OpenCommand)(export_style)
app.command(cls=Command)(bench)
app.command(cls=Command)(doctor)
app.command(cls=OpenCommand)(invert)
app.command(cls=Command)(inspect)
app.command(cls=OpenCommand)(dream)
app.command(cls=OpenCommand)(attack)
app.command(cls=OpenCommand)(texture)
app.add_typer(transfer, name="transfer")
transfer.command(cls=OpenCommand)(fit)
transfer.command(cls=Command)(predict)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"impasto {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def impasto(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Repaint a photo in a painting's style: [bold]impasto stylize photo.jpg painting.jpg[/bold]."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@style.callback(invoke_without_command=True)
def style_help(ctx: typer.Context) -> None:
    """Make and inspect style cards: small files that hold a painting's style."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@transfer.callback(invoke_without_command=True)
def transfer_help(ctx: typer.Context) -> None:
    """Train and use your own classifier."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 for a fault of impasto, 2 for a user's mistake, 130 after Ctrl-C."""
    try:
        log_to_stderr()
        KERNELS.special = os.environ.get("IMPASTO_KERNELS", "") != "torch"
        if "torch" not in sys.modules:  # OpenMP reads it once
            set_threads(os.environ, shared="serve" in (sys.argv[1:] if argv is None else argv)[:1])
        code = app(args=None if argv is None else list(argv), prog_name="impasto", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except ImpastoError as error:
        return _fail(str(error))
    except USAGE_ERRORS as error:
        return _fail(_plain(cast(Any, error).format_message()))
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader has closed the pipe
        _leave_stdout()
        return UNREAD
    except OSError as error:  # a full disk, a missing folder: the user can fix it
        return _fail(_explain_system(error)) if error.errno is not None else _report_fault(error)
    except Exception as error:
        if is_out_of_memory(error):
            return _fail("not enough memory for this: try a smaller --size")
        return _report_fault(error)


def _plain(message: str) -> str:
    """Return a usage error in the words of impasto's own ones."""
    for pattern, words in PLAINER:
        message = re.sub(pattern, words, message)
    return message


def _leave_stdout() -> None:
    """Keep Python from writing the rest to a closed pipe."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def _explain_system(error: OSError) -> str:
    """Return one line on what the system refused."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current folder is gone; change to another one"
    name = error.filename if isinstance(error.filename, str | os.PathLike) else "a file or device"
    return f"{os.fspath(name)} can't be read or written: {error.strerror or error}; check the disk and its permissions"


def _fail(message: str) -> int:
    return _say(f"error: {one_line(message)}", MISTAKE)


def _say(message: str, code: int) -> int:
    say(message, err=True)
    return code


def _report_fault(error: Exception) -> int:
    """Report a fault of impasto in two lines; the traceback only with IMPASTO_DEBUG=1."""
    if os.environ.get("IMPASTO_DEBUG", "") not in ("", "0"):
        traceback.print_exception(error, file=sys.stderr)
    say(f"error: this should not have happened: {one_line(f'{type(error).__name__}: {error}')}", err=True)
    return _say("Please report it with the command and what it prints when IMPASTO_DEBUG=1 is set.", BROKEN)

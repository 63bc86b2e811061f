"""The command line: the commands, their exit codes, and their error messages.

No module in this folder loads torch at import: `impasto --help` is instant.
"""

from __future__ import annotations

import importlib
import itertools
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from impasto import __version__
from impasto.cli.quick_start import collect_nothing_while_loading
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
        for word in itertools.takewhile(lambda word: word != "--", args):
            if word[:1] == "-" != word[1:2] and len(word) > 2 and os.path.exists(word):
                raise ImpastoError(f"{word} begins with - as flags do: write ./{word}")
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


COMMANDS: dict[str, tuple[str, type[Command]]] = {
    "stylize": ("stylize", OpenCommand),
    "batch": ("batch", OpenCommand),
    "video": ("video", OpenCommand),
    "live": ("live", OpenCommand),
    "serve": ("serve", OpenCommand),
    "web": ("web", Command),
    "methods": ("methods", Command),
    "styles": ("style", Command),
    "sweep": ("sweep", OpenCommand),
    "evaluate": ("evaluate", OpenCommand),
    "train": ("train", OpenCommand),
    "adapt": ("adapt", OpenCommand),
    "export": ("export", OpenCommand),
    "export-style": ("export_style", OpenCommand),
    "bench": ("bench", Command),
    "doctor": ("bench", Command),
    "invert": ("invert", OpenCommand),
    "inspect": ("inspect", Command),
    "dream": ("dream", OpenCommand),
    "attack": ("attack", OpenCommand),
    "texture": ("texture", OpenCommand),
}
"""Each command's module in this folder, whose function has the command's name, and its kind; as the help lists them."""

GROUPS: dict[str, tuple[str, str, dict[str, type[Command]]]] = {
    "style": (
        "style",
        "Make and inspect style cards: small files that hold a painting's style.",
        {"extract": OpenCommand, "show": Command},
    ),
    "transfer": ("transfer", "Train and use your own classifier.", {"fit": OpenCommand, "predict": Command}),
}
"""Each group's module, its help and its commands; the help lists groups after the commands."""


def make_app(words: Sequence[str] = ()) -> typer.Typer:
    """Return the command line; if `words` begin with a command, with that one alone: all take a tenth of a second."""
    app = typer.Typer(
        name="impasto",
        cls=Group,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(impasto)
    first = words[0] if words else ""
    alone = first in COMMANDS or first in GROUPS
    for name, (module, kind) in COMMANDS.items():
        if name == first or not alone:
            app.command(name, cls=kind)(_function(module, name))
    for name, (module, text, commands) in GROUPS.items():
        if name == first or not alone:
            group = typer.Typer(cls=Group)
            group.callback(invoke_without_command=True, help=text)(_show_help)
            for command, kind in commands.items():
                group.command(command, cls=kind)(_function(module, command))
            app.add_typer(group, name=name)
    return app


def _function(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"impasto.cli.{module}"), name.replace("-", "_"))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"impasto {__version__}")
        raise typer.Exit


def _show_help(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def impasto(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Repaint a photo in a painting's style: [bold]impasto stylize photo.jpg painting.jpg[/bold]."""
    _show_help(ctx)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 for a fault of impasto, 2 for a user's mistake, 130 after Ctrl-C."""
    try:
        log_to_stderr()
        KERNELS.special = os.environ.get("IMPASTO_KERNELS", "") != "torch"
        words = sys.argv[1:] if argv is None else list(argv)
        if "torch" not in sys.modules:  # OpenMP reads it once
            set_threads(os.environ, shared="serve" in words[:1])
            collect_nothing_while_loading("torch")
        code = make_app(words)(args=words, prog_name="impasto", standalone_mode=False)
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

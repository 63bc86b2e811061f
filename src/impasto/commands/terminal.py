"""Output of commands: text and JSON on stdout and stderr, escaped for terminals; quiet mode."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import typer

from impasto.errors import ImpastoError, printable, to_json


def be_quiet(quiet: bool) -> None:
    """If `quiet`, silence notes, but not warnings."""
    if quiet:
        logging.getLogger("impasto").setLevel(logging.WARNING)


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text, with control characters escaped. Raises ImpastoError if stdout is full."""
    try:
        typer.echo(printable(text, keep="\n\t"), err=err, nl=nl)
    except UnicodeEncodeError:  # a stream in a narrow encoding
        typer.echo(printable(text, keep="\n\t").encode("ascii", "backslashreplace").decode(), err=err, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        if not err:
            reason = error.strerror or error
            raise ImpastoError(f"standard output can't be written ({reason}), but all files are") from None


def say_path(path: object) -> None:
    """Print the name of a file: as bytes to a program, escaped to a terminal."""
    text = str(path)
    buffer = getattr(sys.stdout, "buffer", None)
    if sys.stdout.isatty() or buffer is None or text == printable(text):
        say(text)
        return
    sys.stdout.flush()
    buffer.write(os.fsencode(text) + b"\n")
    buffer.flush()


def print_json(value: Any, *, line: bool = False) -> None:
    """Print one JSON object to stdout; line: on a single line."""
    say(to_json(value, indent=None if line else 2))

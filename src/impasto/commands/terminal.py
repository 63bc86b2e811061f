"""Output of commands: JSON on stdout, quiet mode."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    pass


def be_quiet(quiet: bool) -> None:
    """Silence notes, not warnings."""
    if quiet:
        logging.getLogger("impasto").setLevel(logging.WARNING)


def print_json(value: Any, *, line: bool = False) -> None:
    """Print one JSON object to stdout; line: on a single line."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=None if line else 2, default=str))
